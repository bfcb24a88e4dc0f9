//! How a client says who it is and knows whom it talks to; and what it means when a connection fails.

use std::error::Error;
use std::io;
use std::path::Path;

use async_nats::rustls::pki_types::CertificateDer;
use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::{ConnectErrorKind, ConnectOptions, ServerAddr, rustls};
use nkeys::{KeyPair, KeyPairType};
use percent_encoding::percent_decode_str;

use crate::error::ConnectError;
use crate::settings::{Credentials, Settings};

/// The servers, without the user that an address may name.
pub(crate) fn addresses(settings: &Settings) -> Result<Vec<ServerAddr>, ConnectError> {
    let parse = |text: &String| {
        let (address, user) = apart(text);
        let bad = |why: String| ConnectError::BadSetting {
            what: "the address of a NATS server",
            found: address.clone(),
            why,
        };
        if user.is_some() && settings.credentials != Credentials::None {
            return Err(bad("it names a user, and other credentials are given beside it".to_owned()));
        }
        let like = "they are like nats://HOST:4222, or tls://HOST:4222";
        address.parse::<ServerAddr>().map_err(|error| bad(format!("{error}; {like}")))
    };
    settings.servers.iter().map(parse).collect()
}

/// The servers as they may be shown.
pub(crate) fn shown(settings: &Settings) -> String {
    settings.servers.iter().map(|text| apart(text).0).collect::<Vec<_>>().join(", ")
}

/// An address, and the user in it: `nats://USER:PASSWORD@HOST` or `nats://TOKEN@HOST`.
fn apart(text: &str) -> (String, Option<Credentials>) {
    let (scheme, rest) = text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
    let (user, host) = rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
    let address = scheme.map_or_else(|| host.to_owned(), |scheme| format!("{scheme}://{host}"));
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let credentials = user.map(|user| match user.split_once(':') {
        Some((user, password)) => Credentials::User { user: decoded(user), password: decoded(password) },
        None => Credentials::Token(decoded(user)),
    });
    (address, credentials)
}

/// What the client says of itself: as it is told, or as the first address says that names a user.
fn credentials(settings: &Settings) -> Credentials {
    if settings.credentials != Credentials::None {
        return settings.credentials.clone();
    }
    settings.servers.iter().find_map(|text| apart(text).1).unwrap_or_default()
}

/// Options for a connection. All files are read and looked at, so that what is wrong with one is not the server's.
pub(crate) async fn options(settings: &Settings) -> Result<ConnectOptions, ConnectError> {
    let options = match credentials(settings) {
        Credentials::None => ConnectOptions::new(),
        Credentials::Token(token) => ConnectOptions::with_token(token),
        Credentials::User { user, password } => ConnectOptions::with_user_and_password(user, password),
        Credentials::Nkey(path) => {
            ConnectOptions::with_nkey(looked_at("the file of the NKey's seed", &path, seed).await?)
        }
        Credentials::File(path) => {
            let parse = |text: String| ConnectOptions::with_credentials(&text);
            looked_at("the credentials file", &path, parse).await?
        }
    };
    match &settings.tls_ca {
        Some(path) => {
            looked_at("the file of certificates", path, certificates).await?;
            // Whoever names an authority wants no connection that it does not vouch for.
            Ok(options.add_root_certificates(path.clone()).require_tls(true))
        }
        None => Ok(options),
    }
}

async fn looked_at<T>(
    what: &'static str,
    path: &Path,
    look: impl FnOnce(String) -> io::Result<T>,
) -> Result<T, ConnectError> {
    let text = tokio::fs::read_to_string(path).await;
    text.and_then(look).map_err(|source| ConnectError::BadFile { what, path: path.to_owned(), source })
}

fn garbled(why: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The seed of a user's NKey. No error shows any of it.
fn seed(text: String) -> io::Result<String> {
    let seed = text.trim();
    match KeyPair::from_seed(seed).map(|pair| pair.key_pair_type()) {
        Ok(KeyPairType::User) => Ok(seed.to_owned()),
        Ok(_) => Err(garbled("it holds the seed of another kind than a user's, which begins with SU")),
        Err(error) => {
            Err(garbled(format!("it holds no seed of an NKey, which begins with SU ({})", error.kind())))
        }
    }
}

fn certificates(text: String) -> io::Result<()> {
    let found = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if found.is_empty() => Err(garbled("it holds no certificate in PEM")),
        Ok(_) => Ok(()),
        Err(error) => Err(garbled(format!("it holds no certificates in PEM: {error}"))),
    }
}

/// What a connection failed by.
pub(crate) fn failed(settings: &Settings, error: &async_nats::ConnectError) -> ConnectError {
    let servers = shown(settings);
    if matches!(error.kind(), ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication) {
        return ConnectError::WrongCredentials { servers, used: credentials(settings).to_string() };
    }
    let (why, remedy) = match by_tls(error) {
        Some(rustls::Error::InvalidCertificate(why)) => (
            format!("its certificate is not trusted: {why}"),
            "name the authority that signed it (tls_ca; the system's are used without it), and an address that stands in it",
        ),
        Some(error @ rustls::Error::InvalidMessage(_)) => (
            format!("it seems to speak no TLS ({error})"),
            "give it a certificate, or leave out tls_ca and tls:// where the network itself is trusted",
        ),
        Some(error) => (error.to_string(), "see the server's log, and its tls {{ … }}"),
        None if error.kind() == ConnectErrorKind::Tls => {
            (error.to_string(), "name the authority that signed its certificate (tls_ca)")
        }
        None => return ConnectError::Unreachable { servers, why: error.to_string() },
    };
    ConnectError::Tls { servers, why, remedy }
}

/// The error of TLS that is at the bottom of another one.
fn by_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // The source of such an error is the source of what it holds.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = held.map_or_else(|| error.source(), |held| Some(held as &(dyn Error + 'static)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_in_an_address_is_used_and_never_shown() {
        let settings = Settings::new(["nats://me:p%40ss@127.0.0.1:1", "me:p%40ss@host:2"], "/tmp/spool");
        assert_eq!(shown(&settings), "nats://127.0.0.1:1, host:2");
        assert!(addresses(&settings).unwrap().iter().all(|address| !address.has_user_pass()));
        let expected = Credentials::User { user: "me".to_owned(), password: "p@ss".to_owned() };
        assert_eq!(credentials(&settings), expected);
        let token = Settings::new(["nats://secret@host"], "/tmp/spool");
        assert_eq!(credentials(&token), Credentials::Token("secret".to_owned()));
        let both = Settings { credentials: expected, ..token };
        let error = addresses(&both).unwrap_err().to_string();
        assert!(error.contains("nats://host") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn seeds_of_users_are_taken() {
        let of = |pair: KeyPair| seed(format!("{}\n", pair.seed().unwrap()));
        assert!(of(KeyPair::new_user()).is_ok());
        assert!(of(KeyPair::new_account()).unwrap_err().to_string().contains("SU"));
        let cut = KeyPair::new_user().seed().unwrap()[..50].to_owned();
        let error = seed(cut.clone()).unwrap_err().to_string();
        assert!(error.contains("SU") && !error.contains(&cut[2..]), "{error}");
    }
}
