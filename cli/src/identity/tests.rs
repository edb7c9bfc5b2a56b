#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_certificate_says_who_its_holder_is() {
    let dir = tempfile::tempdir().unwrap();
    init_ca(dir.path()).unwrap();
    let files = issue_cert(dir.path(), Role::Worker, "w1", &["10.0.0.1".into()], &dir.path().join("out")).unwrap();
    assert!(files.cert.ends_with("out/w1.pem"));
    // rcgen reads only authorities; openssl, where it is there, reads all.
    for key in [&files.key, &dir.path().join("ca.key")] {
        assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let shown =
        std::process::Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(&files.cert).output();
    if let Ok(shown) = shown {
        let text = String::from_utf8(shown.stdout).unwrap();
        for expected in ["O = millgrid, OU = worker, CN = w1", "TLS Web Client Authentication", "IP Address:10.0.0.1"] {
            let plain = text.replace("O=", "O = ").replace("OU=", "OU = ").replace("CN=", "CN = ");
            assert!(plain.contains(expected), "{expected} is not in {text}");
        }
        assert!(!text.contains("TLS Web Server Authentication"));
        let verify = std::process::Command::new("openssl")
            .args(["verify", "-CAfile"])
            .arg(dir.path().join("ca.pem"))
            .arg(&files.cert)
            .output();
        assert!(verify.unwrap().status.success());
    }
}

#[test]
fn nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    init_ca(dir.path()).unwrap();
    let before = fs::read(dir.path().join("ca.key")).unwrap();
    assert!(matches!(init_ca(dir.path()), Err(Problem::Exists(_))));
    let issue = || issue_cert(dir.path(), Role::Client, "ann", &[], dir.path());
    issue().unwrap();
    assert!(matches!(issue(), Err(Problem::Exists(path)) if path.ends_with("ann.pem")));
    assert_eq!(fs::read(dir.path().join("ca.key")).unwrap(), before);
}

#[test]
fn what_can_not_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let issue = |name: &str, host: &str| {
        issue_cert(dir.path(), Role::Coordinator, name, &[host.to_owned()], dir.path()).unwrap_err()
    };
    assert!(matches!(issue("c1", "a.example"), Problem::NoAuthority(_)));
    for name in ["", "..", "../c1", "a b", "-x", "é", "ca", &"x".repeat(65)] {
        assert!(matches!(issue(name, "localhost"), Problem::Name(_)), "{name}");
    }
    for host in ["", "a b", "a..b", "-a", "host:80", "https://a"] {
        assert!(matches!(issue("c1", host), Problem::Host(_)), "{host}");
    }
    assert!(matches!("admin".parse::<Role>(), Err(Problem::Role(role)) if role == "admin"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
