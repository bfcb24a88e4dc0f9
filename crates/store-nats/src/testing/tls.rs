//! Certificates for servers that want TLS, made anew by each test.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

const MADE: &str = "a certificate can be made";

/// Somebody who signs certificates.
#[derive(Debug)]
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a server shows to its clients, as PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    /// A new one, whom nobody knows yet.
    ///
    /// # Panics
    /// Without randomness.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut about = params(&[]);
        about.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        about.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect(MADE);
        let certificate = about.self_signed(&key).expect(MADE).pem();
        Self { certificate, issuer: Issuer::new(about, key) }
    }

    /// A certificate for a server with these names or addresses.
    ///
    /// # Panics
    /// When a name is none.
    #[must_use]
    pub fn sign(&self, names: &[&str]) -> Certificate {
        let key = KeyPair::generate().expect(MADE);
        let signed = params(names).signed_by(&key, &self.issuer).expect(MADE);
        Certificate { certificate: signed.pem(), key: key.serialize_pem() }
    }

    /// Writes its own certificate into a folder: what clients are given as `tls_ca`.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn file(&self, folder: &Path) -> PathBuf {
        let path = folder.join("ca.pem");
        fs::write(&path, &self.certificate).expect("room for a file");
        path
    }
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).expect(MADE)
}
