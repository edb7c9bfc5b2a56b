use std::fs;

use crate::harness::{BUCKET, Endpoint};

fn place(endpoint: &Endpoint, keys: &[&str]) {
    for key in keys {
        let path = endpoint.file(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, key).unwrap();
    }
}

#[tokio::test]
async fn fifteen_hundred_keys_come_in_pages_in_order() {
    let endpoint = Endpoint::start().await;
    let mut expected: Vec<String> = (0..1500).map(|n| format!("k{}/{:03}/{n}", n % 7, n % 50)).collect();
    place(&endpoint, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    expected.sort();
    let mut pages = endpoint.client.list_objects_v2().bucket(BUCKET).into_paginator().send();
    let (mut keys, mut sizes) = (Vec::new(), Vec::new());
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        sizes.push(page.contents().len());
        keys.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
    }
    assert_eq!(sizes, [1000, 500]);
    assert_eq!(keys, expected);
}

/// All pages of at most `size` entries: keys, and common prefixes in brackets.
async fn pages(endpoint: &Endpoint, prefix: &str, delimiter: &str, after: &str, size: i32) -> Vec<String> {
    let (mut lines, mut token) = (Vec::new(), None);
    loop {
        let list = endpoint.client.list_objects_v2().bucket(BUCKET).prefix(prefix).max_keys(size);
        let list = list.set_delimiter((!delimiter.is_empty()).then(|| delimiter.to_owned()));
        let list = list.set_start_after((!after.is_empty()).then(|| after.to_owned()));
        let page = list.set_continuation_token(token).send().await.unwrap();
        let mut entries: Vec<(String, String)> = page
            .contents()
            .iter()
            .map(|object| object.key().unwrap().to_owned())
            .map(|key| (key.clone(), key))
            .collect();
        entries.extend(page.common_prefixes().iter().map(|one| one.prefix().unwrap().to_owned()).map(|prefix| {
            let line = format!("[{prefix}]");
            (prefix, line)
        }));
        assert!(entries.len() <= size as usize);
        entries.sort();
        lines.extend(entries.into_iter().map(|(_, line)| line));
        token = page.next_continuation_token;
        if token.is_none() {
            return lines;
        }
    }
}

#[tokio::test]
async fn prefixes_and_delimiters_select_and_fold() {
    let endpoint = Endpoint::start().await;
    place(&endpoint, &["a", "b.txt", "b/1", "b/2/x", "b/2/y", "b/3", "ba", "c/d/e", "z"]);
    fs::create_dir_all(endpoint.file("empty/folder")).unwrap();
    let check = async |prefix: &str, delimiter: &str, after: &str, expected: &str| {
        for size in [1, 2, 1000] {
            let lines = pages(&endpoint, prefix, delimiter, after, size).await;
            assert_eq!(lines.join(" "), expected, "{prefix} {delimiter} {after} {size}");
        }
    };
    check("", "", "", "a b.txt b/1 b/2/x b/2/y b/3 ba c/d/e z").await;
    check("", "/", "", "a b.txt [b/] ba [c/] z").await;
    check("b", "", "", "b.txt b/1 b/2/x b/2/y b/3 ba").await;
    check("b/", "/", "", "b/1 [b/2/] b/3").await;
    check("b/2", "/", "", "[b/2/]").await;
    check("c/d/e", "/", "", "c/d/e").await;
    check("", "", "b/2/x", "b/2/y b/3 ba c/d/e z").await;
    check("", "/", "b/2/x", "[b/] ba [c/] z").await;
    check("", "/", "b0", "ba [c/] z").await;
    check("", "2", "", "a b.txt b/1 [b/2] b/3 ba c/d/e z").await;
    check("nothing", "/", "", "").await;
}

#[tokio::test]
async fn the_first_version_of_the_listing_pages_by_markers() {
    let endpoint = Endpoint::start().await;
    place(&endpoint, &["a/1", "a/2", "b", "c/1", "d"]);
    let (mut lines, mut marker) = (Vec::new(), None);
    loop {
        let list = endpoint.client.list_objects().bucket(BUCKET).delimiter("/").max_keys(1).set_marker(marker);
        let page = list.send().await.unwrap();
        lines.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
        lines.extend(page.common_prefixes().iter().map(|prefix| prefix.prefix().unwrap().to_owned()));
        marker = page.next_marker;
        if marker.is_none() {
            break;
        }
    }
    assert_eq!(lines, ["a/", "b", "c/", "d"]);
}
