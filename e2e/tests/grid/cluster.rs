//! What the coordinators say about themselves.

use e2e::{Grid, Options, check_fields, text, whole};

#[test]
fn the_status_has_all_its_fields_for_each_of_three_members() {
    let grid = Grid::shared();
    // Right after the start the members have yet to find each other.
    let status = e2e::eventually("all are reachable", crate::SOON, || {
        let status = grid.millgrid(["cluster", "status", "-o", "json"]).ok().json();
        let members = status["members"].as_array().unwrap();
        members.iter().all(|member| member["reachable"] == true).then_some(status)
    });
    check_fields(&status, &[("leader", "text?"), ("term", "whole"), ("members", "array")]);
    let members = status["members"].as_array().unwrap();
    let mut names: Vec<&str> = members.iter().map(|member| text(member, "name")).collect();
    names.sort_unstable();
    assert_eq!(names, ["c1", "c2", "c3"]);
    for member in members {
        check_fields(
            member,
            &[
                ("id", "whole"),
                ("name", "text"),
                ("role", "text"),
                ("address", "text"),
                ("reachable", "bool"),
                ("term", "whole"),
                ("commit_index", "whole"),
                ("applied_index", "whole"),
                ("digest_index", "whole"),
                ("digest", "text?"),
            ],
        );
        let role = if text(member, "name") == text(&status, "leader") { "leader" } else { "follower" };
        assert_eq!(text(member, "role"), role);
        assert_eq!(whole(member, "term"), whole(&status, "term"));
    }
}

#[test]
fn a_dead_member_is_shown_as_such() {
    let grid = Grid::start(Options { workers: 1, ..Options::default() });
    let leader = grid.leader();
    let dead = ["c1", "c2", "c3"].into_iter().find(|name| *name != leader).unwrap();
    grid.dev("kill", &[dead]).ok();
    let member = e2e::eventually("it is unreachable", crate::SOON, || {
        let status = grid.millgrid(["cluster", "status", "-o", "json"]).ok().json();
        let members = status["members"].as_array().unwrap().clone();
        let member = members.into_iter().find(|member| member["name"] == dead).unwrap();
        (member["reachable"] == false).then_some(member)
    });
    assert!(member["digest"].is_null(), "{member}");
    grid.dev("restart", &[dead]).ok();
}

#[test]
fn leadership_moves_to_the_member_that_was_named() {
    let grid = Grid::start(Options { workers: 1, ..Options::default() });
    for name in ["c3", "c1", "c2"] {
        grid.millgrid(["cluster", "transfer-leader", name]).ok();
        assert_eq!(grid.leader(), name);
        grid.millgrid(["run", "--", "true"]).ok();
    }
    grid.millgrid(["cluster", "transfer-leader", "c9"]).exits(3);
}

#[test]
fn each_coordinator_alone_is_a_way_in() {
    let grid = Grid::shared();
    let endpoints: Vec<String> = grid.variable("MILLGRID_ENDPOINT").split(',').map(str::to_owned).collect();
    assert_eq!(endpoints.len(), 3);
    for endpoint in endpoints {
        assert!(endpoint.starts_with("https://127.0.0.1:"), "{endpoint}");
        let output = grid.millgrid(["run", "--endpoint", &endpoint, "--", "echo", "this way"]).ok();
        assert_eq!(output.stdout, "this way\n");
    }
}
