//! Certificates: who may come in, and as what.

use std::{
    fs,
    path::{Path, PathBuf},
};

use e2e::{Grid, Output, Running, Test};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd};

/// A certificate of a role by the authority in a folder: its file; the key is beside it.
fn issue(grid: &Test, authority: &Path, role: &str, name: &str) -> PathBuf {
    let (ca, out) = (authority.display().to_string(), grid.work().join("issued").display().to_string());
    let issue = ["cluster", "issue-cert", "--ca", &ca, "--role", role, "--name", name, "--out", &out];
    grid.millgrid(issue).ok();
    grid.work().join("issued").join(format!("{name}.pem"))
}

fn list_as(grid: &Test, cert: &Path) -> Output {
    let mut command = grid.command(["ls", "--timeout", "10s"]);
    command.env("MILLGRID_CERT", cert).env("MILLGRID_KEY", cert.with_extension("key"));
    Running::start(&mut command).output()
}

/// The folder below the grid's state that holds its authority.
fn own_authority(grid: &Test) -> PathBuf {
    let mut folders = vec![grid.state().to_owned()];
    while let Some(folder) = folders.pop() {
        if folder.join("ca.key").exists() {
            return folder;
        }
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        folders.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    panic!("no authority below {}", grid.state().display());
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let grid = Grid::shared();
    let other = grid.work().join("other-ca");
    grid.millgrid(["cluster", "init-ca", "--out", &other.display().to_string()]).ok();
    let stranger = issue(&grid, &other, "client", "stranger");
    let output = list_as(&grid, &stranger).exits(4);
    assert!(output.elapsed.as_secs() < 15, "{:?}", output.elapsed);
    // The other way round: who trusts another authority doesn't believe this grid.
    let mut command = grid.command(["ls", "--timeout", "5s"]);
    command.env("MILLGRID_CA", other.join("ca.pem"));
    Running::start(&mut command).output().exits(4);
}

#[test]
fn an_expired_certificate_is_refused() {
    let grid = Grid::shared();
    let authority = own_authority(&grid);
    let read = |name: &str| fs::read_to_string(authority.join(name)).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), KeyPair::from_pem(&read("ca.key")).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "millgrid");
    params.distinguished_name.push(DnType::OrganizationalUnitName, "client");
    params.distinguished_name.push(DnType::CommonName, "late");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    fs::write(grid.file("late.pem"), certificate.pem()).unwrap();
    fs::write(grid.file("late.key"), key.serialize_pem()).unwrap();
    list_as(&grid, &grid.file("late.pem")).exits(4);
}

#[test]
fn each_role_stays_in_its_own() {
    let grid = Grid::shared();
    let authority = own_authority(&grid);
    list_as(&grid, &issue(&grid, &authority, "worker", "as-worker")).exits(4);
    list_as(&grid, &issue(&grid, &authority, "coordinator", "as-coordinator")).exits(4);
    list_as(&grid, &issue(&grid, &authority, "client", "as-client")).ok();
}

#[test]
fn the_owner_of_a_job_is_the_certificates_name() {
    let grid = Grid::shared();
    let ada = issue(&grid, &own_authority(&grid), "client", "ada");
    let mut command = grid.command(["submit", "--hold", "-o", "json", "--", "true"]);
    command.env("MILLGRID_CERT", &ada).env("MILLGRID_KEY", ada.with_extension("key"));
    let job = Running::start(&mut command).output().ok().json();
    assert_eq!(job["owner"], "ada");
    // Mine are not hers; all are.
    let id = format!("{}\n", job["id"]);
    assert!(!grid.millgrid(["ls", "-o", "id"]).ok().stdout.contains(&id));
    assert!(grid.millgrid(["ls", "--all", "-o", "id"]).ok().stdout.contains(&id));
    assert_eq!(list_as(&grid, &ada).ok().stdout.lines().filter(|line| line.contains("ada")).count(), 1);
    grid.millgrid(["cancel", id.trim()]).ok();
}

#[test]
fn nobody_comes_in_without_a_certificate() {
    let grid = Grid::shared();
    let output =
        Running::start(grid.bare_command().args(["ls", "--endpoint", "https://127.0.0.1:9"])).output().exits(2);
    assert!(output.stderr.contains("--ca"), "{}", output.stderr);
    grid.millgrid(["ls", "--cert", "no-such-file"]).exits(2).complains(&["no-such-file"]);
}

#[test]
fn nothing_that_exists_is_written_over() {
    let grid = Grid::shared();
    let folder = grid.work().join("twice-ca").display().to_string();
    grid.millgrid(["cluster", "init-ca", "--out", &folder]).ok();
    grid.millgrid(["cluster", "init-ca", "--out", &folder]).exits(6);
    grid.millgrid(["cluster", "issue-cert", "--ca", &folder, "--role", "king", "--name", "x", "--out", &folder])
        .exits(2);
    grid.millgrid(["cluster", "issue-cert", "--ca", &folder, "--role", "client", "--name", "../x", "--out", &folder])
        .exits(2);
}
