//! The daemon's address: where it listens, and what others are told.

use std::net::SocketAddr;

use outlive_server::{BoundTcp, TcpPolicy, Token, bind_tcp};

use super::cannot;
use crate::client::way::Way;
use crate::config::{Config, Setting};
use crate::exit::Exit;
use crate::failure::Failure;

/// Listens where the configuration says, if it says so. `hosts` are names by which clients may call this machine.
pub(super) async fn listen(config: &Config, hosts: &[String]) -> Result<Option<BoundTcp>, Failure> {
    let Setting { value: Some(address), origin } = &config.tcp else { return Ok(None) };
    let address: SocketAddr = address.parse().map_err(|_| {
        Failure::new(Exit::Usage, format!("{address:?} (from {origin}) is no address to listen on"))
            .hint("write it as ADDRESS:PORT, for instance 127.0.0.1:8787")
    })?;
    bind(config, address, hosts).await.map(Some)
}

async fn bind(config: &Config, address: SocketAddr, hosts: &[String]) -> Result<BoundTcp, Failure> {
    let token = Token::load_or_create(&config.token_file.value).map_err(|error| cannot(&error))?;
    let policy = TcpPolicy { token, hosts: hosts.to_vec(), origins: Vec::new() };
    bind_tcp(address, policy).await.map_err(|error| cannot(&error))
}

/// Listens for the other nodes, and says where they reach this one.
pub(super) async fn listen_for_nodes(config: &Config) -> Result<(BoundTcp, String), Failure> {
    let advertise = &config.cluster.advertise;
    let said = advertise.value.as_deref().map(place_of).transpose().map_err(|why| {
        Failure::new(Exit::Usage, format!("`cluster.advertise` (from {}): {why}", advertise.origin))
    })?;
    let own = machine();
    let hosts: Vec<String> = said.iter().map(|said| said.host.clone()).chain(own.clone()).collect();
    let tcp = match listen(config, &hosts).await? {
        Some(tcp) => tcp,
        None if said.is_some() => {
            let what = format!(
                "`cluster.advertise` (from {}) names an address, and this node listens on none",
                advertise.origin
            );
            return Err(Failure::new(Exit::Usage, what).hint("give --tcp ADDRESS:PORT as well"));
        }
        None => {
            tracing::warn!(
                "this node listens on 127.0.0.1 alone: nodes and clients of other machines cannot reach it; \
                 give --tcp ADDRESS:PORT"
            );
            bind(config, SocketAddr::from(([127, 0, 0, 1], 0)), &hosts).await?
        }
    };
    let address = tcp.address();
    let url = match (said, own) {
        (Some(said), _) => said.url,
        // An address that means all of this machine's is none that another machine could use.
        (None, Some(name)) if address.ip().is_unspecified() => format!("http://{name}:{}", address.port()),
        (None, _) => format!("http://{address}"),
    };
    Ok((tcp, url))
}

/// Where others reach this node.
struct Advertised {
    /// `http://HOST:PORT`, whatever of it was left out.
    url: String,
    host: String,
}

fn place_of(url: &str) -> Result<Advertised, String> {
    let Way::Tcp { authority, .. } = Way::url(url, None)? else { return Err(format!("{url:?} is no URL")) };
    let (host, _) = authority.rsplit_once(':').ok_or("it has no port")?;
    Ok(Advertised { host: host.to_owned(), url: format!("http://{authority}") })
}

/// What this machine calls itself.
fn machine() -> Option<String> {
    let uname = rustix::system::uname();
    uname.nodename().to_str().ok().filter(|name| !name.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_advertised_is_a_whole_address() {
        let place = |url: &str| place_of(url).map(|place| (place.host, place.url));
        let is = |host: &str, url: &str| Ok((host.to_owned(), url.to_owned()));
        assert_eq!(place("http://10.0.0.1:8787/"), is("10.0.0.1", "http://10.0.0.1:8787"));
        assert_eq!(place("http://[::1]:8787"), is("[::1]", "http://[::1]:8787"));
        assert_eq!(place("node-a.example:1"), is("node-a.example", "http://node-a.example:1"));
        assert_eq!(place("http://node-a"), is("node-a", "http://node-a:80"));
        assert!(place("https://a").is_err());
    }
}
