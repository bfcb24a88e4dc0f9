//! What a server for tests is told.

use std::fmt::Write as _;
use std::path::Path;

use super::ports::Ports;
use super::tls::Certificate;

/// Where a server finds what it shows to clients.
pub(super) const CERTIFICATE: &str = "server.pem";
pub(super) const KEY: &str = "server-key.pem";

/// How a server for tests is made. The default is open to everybody and stores what fits on the disk.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether it stores anything, and how much.
    pub jetstream: JetStream,
    /// Who may use it.
    pub access: Access,
    /// The longest message, in bytes; the server's default without it.
    pub message_bytes_max: Option<usize>,
    /// What it shows to clients, none of whom it takes without TLS; plain connections without it.
    pub tls: Option<Certificate>,
}

/// What a server for tests stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum JetStream {
    /// As much as fits.
    #[default]
    On,
    /// At most so many bytes.
    Bounded(u64),
    /// Nothing: JetStream is not switched on.
    Off,
}

impl JetStream {
    pub(super) fn is_on(self) -> bool {
        self != Self::Off
    }
}

/// Who may use a server for tests.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Access {
    /// Everybody, without credentials.
    #[default]
    Open,
    /// Whoever has this token.
    Token(String),
    /// One user.
    Password {
        /// Its name.
        user: String,
        /// Its password.
        password: String,
    },
    /// The public key of an nkey.
    Nkey(String),
    /// Everybody, without credentials, and everybody is told whose connections end (`$SYS.ACCOUNT.OUTLIVE.DISCONNECT`).
    /// The user `system` with the password `system` hears all of `$SYS`.
    System,
    /// Everybody, without credentials, in an account that may store nothing.
    StoringForbidden,
}

/// The ports at which the servers of a cluster talk to each other.
#[derive(Clone, Debug)]
pub(super) struct Routes(pub(super) Vec<u16>);

/// All of one server's configuration.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) name: String,
    pub(super) ports: Ports,
    pub(super) options: Options,
    pub(super) routes: Option<Routes>,
}

impl Config {
    /// The file that `nats-server -c` takes.
    pub(super) fn render(&self, home: &Path) -> String {
        let Ports { client, monitoring, route } = self.ports;
        let home = home.display();
        let mut text = format!(
            "server_name: {}\nlisten: \"127.0.0.1:{client}\"\nhttp: \"127.0.0.1:{monitoring}\"\nlog_file: \"{home}/nats.log\"\n",
            self.name
        );
        match self.options.jetstream {
            JetStream::On => {
                let _ = writeln!(text, "jetstream {{ store_dir: \"{home}/store\" }}");
            }
            JetStream::Bounded(bytes) => {
                let _ =
                    writeln!(text, "jetstream {{ store_dir: \"{home}/store\", max_file_store: {bytes} }}");
            }
            JetStream::Off => {}
        }
        if let Some(Routes(routes)) = &self.routes {
            let routes: Vec<_> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
            let routes = routes.join(", ");
            let _ = writeln!(
                text,
                "cluster {{ name: outlive, listen: \"127.0.0.1:{route}\", routes: [{routes}] }}"
            );
        }
        if let Some(bytes) = self.options.message_bytes_max {
            let _ = writeln!(text, "max_payload: {bytes}");
        }
        if self.options.tls.is_some() {
            let _ = writeln!(
                text,
                "tls {{ cert_file: \"{home}/{CERTIFICATE}\", key_file: \"{home}/{KEY}\", timeout: 10 }}"
            );
        }
        text + &self.access()
    }

    fn access(&self) -> String {
        // Of the system's account nodes may hear whose connections end.
        let accounts = |storing: &str| {
            format!(
                "accounts {{\n  \
                   OUTLIVE {{\n    {storing}\n    users: [{{user: outlive, password: outlive}}]\n    \
                     imports: [{{stream: {{account: SYS, subject: \"$SYS.ACCOUNT.OUTLIVE.DISCONNECT\"}}}}]\n  }}\n  \
                   SYS {{\n    users: [{{user: system, password: system}}]\n    \
                     exports: [{{stream: \"$SYS.ACCOUNT.*.DISCONNECT\", account_token_position: 3}}]\n  }}\n}}\n\
                 system_account: SYS\nno_auth_user: outlive\n"
            )
        };
        match &self.options.access {
            Access::Open => String::new(),
            Access::Token(token) => format!("authorization {{ token: \"{token}\" }}\n"),
            Access::Password { user, password } => {
                format!("authorization {{ user: \"{user}\", password: \"{password}\" }}\n")
            }
            Access::Nkey(public) => format!("authorization {{ users: [{{nkey: {public}}}] }}\n"),
            Access::System if self.options.jetstream.is_on() => accounts("jetstream: enabled"),
            Access::System | Access::StoringForbidden => accounts(""),
        }
    }
}
