//! The endpoint as the AWS SDK sees it, and as someone sees it who works in its folder by hand.
#![allow(clippy::unwrap_used)]

mod crashes;
mod harness;
mod listings;
mod objects;
mod refusals;
mod uploads;

#[tokio::test]
#[ignore = "the process that other tests kill"]
async fn serve_until_killed() {
    harness::serve_root_of_parent().await;
}
