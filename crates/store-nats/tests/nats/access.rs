//! Who may come in, and who is trusted.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nkeys::KeyPair;
use outlive_core::id::Position;
use outlive_store_nats::testing::{Access, Authority, NatsServer, Options};
use outlive_store_nats::{ConnectError, Credentials};
use tempfile::TempDir;

use crate::world::{Node, refused};

fn server(access: Access) -> NatsServer {
    NatsServer::start(&Options { access, ..Options::default() })
}

fn token(text: &str) -> Credentials {
    Credentials::Token(text.to_owned())
}

fn user(user: &str, password: &str) -> Credentials {
    Credentials::User { user: user.to_owned(), password: password.to_owned() }
}

/// What is refused by the server is said to be, and shows no secret.
async fn wrong(server: &NatsServer, credentials: Credentials, used: &str) {
    let error = refused(&server.url(), |settings| settings.credentials = credentials).await;
    assert!(matches!(error, ConnectError::WrongCredentials { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains(used) && said.contains(&server.url()) && !said.contains("wrong"), "{said}");
}

#[tokio::test]
async fn tokens_and_passwords_are_checked() {
    let open = server(Access::Token("right".into()));
    wrong(&open, Credentials::None, "none are given").await;
    wrong(&open, token("wrong"), "a token").await;
    wrong(&open, user("somebody", "wrong"), "the user somebody").await;
    Node::with(&open.url(), |settings| settings.credentials = token("right")).await;

    let named = server(Access::Password { user: "me".into(), password: "p@ss".into() });
    wrong(&named, user("me", "wrong"), "the user me").await;
    Node::with(&named.url(), |settings| settings.credentials = user("me", "p@ss")).await;
}

// As it is usual with NATS; the library itself does not look there.
#[tokio::test]
async fn an_address_may_name_the_user() {
    let named = server(Access::Password { user: "me".into(), password: "p@ss".into() });
    let at = |user: &str| named.url().replace("nats://", &format!("nats://{user}@"));
    Node::on(&at("me:p%40ss")).await;
    let error = refused(&at("me:wrong"), |_| {}).await;
    assert!(matches!(error, ConnectError::WrongCredentials { .. }), "{error:?}");
    assert!(error.to_string().contains("the user me") && !error.to_string().contains("wrong"), "{error}");
    let mut gone = server(Access::Open);
    gone.kill();
    let error = refused(&gone.url().replace("nats://", "nats://me:secret@"), |_| {}).await;
    assert!(error.to_string().contains(&gone.url()) && !error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn an_nkey_is_taken() {
    let (folder, pair) = (TempDir::new().unwrap(), KeyPair::new_user());
    let guarded = server(Access::Nkey(pair.public_key()));
    let file = |pair: &KeyPair| {
        let path = folder.path().join(pair.public_key());
        fs::write(&path, pair.seed().unwrap() + "\n").unwrap();
        Credentials::Nkey(path)
    };
    wrong(&guarded, Credentials::None, "none are given").await;
    wrong(&guarded, file(&KeyPair::new_user()), "the NKey of").await;
    Node::with(&guarded.url(), |settings| settings.credentials = file(&pair)).await;
}

/// A credentials file as the tools write it.
fn creds(seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\neyJ0eXAiOiJKV1QifQ.e30.c2ln\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

#[tokio::test]
async fn a_credentials_file_that_the_server_does_not_know_is_refused_by_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("me.creds");
    fs::write(&path, creds(&KeyPair::new_user().seed().unwrap())).unwrap();
    wrong(
        &server(Access::Token("right".into())),
        Credentials::File(path.clone()),
        &path.display().to_string(),
    )
    .await;
}

// No server is asked with something that cannot be right.
#[tokio::test]
async fn files_that_are_missing_or_hold_something_else_are_named() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let missing = folder.path().join("missing");
    let account = KeyPair::new_account().seed().unwrap();
    let cases: [(Credentials, &str); 8] = [
        (Credentials::File(missing.clone()), "No such file"),
        (Credentials::File(folder.path().to_owned()), "directory"),
        (Credentials::File(file("empty.creds", b"")), "JWT"),
        (Credentials::File(file("garbled.creds", creds("SUNONSENSE").as_bytes())), "seed"),
        (Credentials::File(file("binary.creds", &[0xff; 64])), "UTF-8"),
        (Credentials::Nkey(missing), "No such file"),
        (Credentials::Nkey(file("garbled.nk", b"SUNONSENSE\n")), "SU"),
        (Credentials::Nkey(file("account.nk", account.as_bytes())), "another kind"),
    ];
    for (credentials, why) in cases {
        let path = match &credentials {
            Credentials::File(path) | Credentials::Nkey(path) => path.display().to_string(),
            other => panic!("{other:?}"),
        };
        let error = refused("nats://127.0.0.1:1", |settings| settings.credentials = credentials).await;
        let ConnectError::BadFile { source, .. } = &error else { panic!("{path}: {error:?}") };
        assert!(error.to_string().contains(&path), "{error}");
        let said = source.to_string();
        assert!(
            said.contains(why) && !said.contains("NONSENSE") && !said.contains(&account),
            "{path}: {said}"
        );
    }
}

fn secured(authority: &Authority, names: &[&str]) -> NatsServer {
    NatsServer::start(&Options { tls: Some(authority.sign(names)), ..Options::default() })
}

#[tokio::test]
async fn a_server_that_a_known_authority_vouches_for_is_trusted() {
    let (folder, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    let mut server = secured(&authority, &["127.0.0.1"]);
    let ca = authority.file(folder.path());
    let node = Node::with(&server.url(), |settings| settings.tls_ca = Some(ca.clone())).await;
    let (session, _) = node.claimed().await;
    Node::with(&server.url().replace("nats://", "tls://"), |settings| settings.tls_ca = Some(ca)).await;
    // And after a cut.
    server.restart();
    assert_eq!(node.all(session, Position(0)).await.len(), 1);
}

/// Is refused for good, by a reason that stands in the text.
async fn untrusted(server: &str, ca: Option<PathBuf>, why: &str) {
    let wait = Some(Duration::from_secs(30));
    let error = refused(server, |settings| (settings.tls_ca, settings.wait) = (ca, wait)).await;
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
    assert!(error.to_string().contains(why) && error.to_string().contains("tls_ca"), "{error}");
}

#[tokio::test]
async fn a_server_that_nobody_known_vouches_for_is_not_trusted() {
    let (ours, theirs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let authority = Authority::new("ours");
    let server = secured(&authority, &["127.0.0.1"]);
    let other = Authority::new("theirs").file(theirs.path());
    untrusted(&server.url(), Some(other), "UnknownIssuer").await;
    // By the system's authorities.
    untrusted(&server.url(), None, "").await;
    let elsewhere = secured(&authority, &["elsewhere.example"]);
    untrusted(&elsewhere.url(), Some(authority.file(ours.path())), "not valid for name").await;
}

// Whoever wants TLS does not get a connection without it, and neither does the server get a password.
#[tokio::test]
async fn a_plain_server_is_not_used_where_tls_is_wanted() {
    let folder = TempDir::new().unwrap();
    let server = server(Access::Open);
    let ca = Authority::new("ours").file(folder.path());
    untrusted(&server.url(), Some(ca), "no TLS").await;
    untrusted(&server.url().replace("nats://", "tls://"), None, "no TLS").await;
}

#[tokio::test]
async fn a_file_of_certificates_that_holds_none_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("ca.pem");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    for (text, why) in [(None, "No such file"), (Some(""), "no certificate"), (Some(broken), "PEM")] {
        if let Some(text) = text {
            fs::write(&path, text).unwrap();
        }
        let error = refused("nats://127.0.0.1:1", |settings| settings.tls_ca = Some(path.clone())).await;
        let ConnectError::BadFile { source, .. } = &error else { panic!("{error:?}") };
        assert!(
            error.to_string().contains("ca.pem") && source.to_string().contains(why),
            "{error}: {source}"
        );
    }
}
