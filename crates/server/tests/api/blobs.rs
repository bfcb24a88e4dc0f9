//! Large contents: whole, and nothing but blobs.

use crate::client::{Server, fill};

fn path(name: &str) -> String {
    fill(&format!("/v1/sessions/{{id}}/blobs/{name}"))
}

#[tokio::test]
async fn a_blob_comes_whole_with_its_length() {
    let server = Server::start().await;
    let name = "ab".repeat(32);
    let content: Vec<u8> = (0..3_000_000_u32).map(|i| (i * 7 % 251) as u8).collect();
    std::fs::write(server.fake.blobs.join(&name), &content).unwrap();
    let answer = server.unix().await.get(&path(&name)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-length"], content.len().to_string().as_str());
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers["etag"], format!("\"{name}\"").as_str());
    assert!(answer.body == content, "byte for byte");
    let head = server.unix().await.call("HEAD", &path(&name), &[("host", "x")], b"").await;
    assert_eq!((head.headers["content-length"].to_str().unwrap(), head.body.len()), ("3000000", 0));
    server.stop().await;
}

// B6
#[tokio::test]
async fn names_that_are_paths_never_reach_the_node() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    for name in [
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "..%00",
        "%ff%fe",
        &"AB".repeat(32),
        &"ab".repeat(31),
        &format!("..%2f{}", "a".repeat(61)),
    ] {
        let problem = client.get(&path(name)).await.problem();
        assert_eq!((problem.status, problem.code.as_str()), (400, "bad-path"), "{name}");
    }
    assert_eq!(client.get(&path("../../../node")).await.status, 404, "dots are not resolved");
    assert!(server.fake.calls().is_empty());
    server.stop().await;
}

// B6
#[tokio::test]
async fn links_folders_and_pipes_are_no_blobs() {
    let server = Server::start().await;
    let mut client = server.unix().await;
    let secret = server.folder.path().join("secret");
    std::fs::write(&secret, "do not tell").unwrap();
    let names = ["11", "22", "33", "44"].map(|pair| pair.repeat(32));
    let [link, folder, pipe, missing] = &names;
    std::os::unix::fs::symlink(&secret, server.fake.blobs.join(link)).unwrap();
    std::fs::create_dir(server.fake.blobs.join(folder)).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, server.fake.blobs.join(pipe), rustix::fs::FileType::Fifo, mode, 0)
        .unwrap();
    for name in [link, folder, pipe, missing] {
        let answer = client.get(&path(name)).await;
        assert_eq!((answer.status.as_u16(), answer.problem().code.as_str()), (404, "no-such-blob"), "{name}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("do not tell"));
    }
    server.stop().await;
}
