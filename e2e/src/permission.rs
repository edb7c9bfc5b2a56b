//! What some tests need and not every machine permits.

/// Says that a test is skipped, and why; under `CI=true`, where everything is tested, it fails instead.
#[track_caller]
pub fn skip(needs: &str, reason: &str) {
    let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!ci, "this is CI, and it has no {needs}: {reason}");
    eprintln!("SKIPPED: it needs {needs}: {reason}");
}
