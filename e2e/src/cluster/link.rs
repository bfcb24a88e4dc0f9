//! A wire between one node and NATS that can be cut.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

/// How a wire is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Connections are closed and new ones are refused at once, as when a process dies.
    Closed,
    /// Nothing passes and nobody is told, as when a cable is pulled.
    Silent,
}

/// The state of a wire.
#[derive(Debug, Default)]
struct State {
    cut: Option<Cut>,
    is_over: bool,
    /// The sockets of what passes, by number.
    open: BTreeMap<u64, [TcpStream; 2]>,
    next: u64,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds a wire")
    }

    /// Waits while nothing passes.
    fn pass(&self) {
        let silent = |state: &mut State| state.cut == Some(Cut::Silent) && !state.is_over;
        drop(self.changed.wait_while(self.lock(), silent).expect("nothing panics while it holds a wire"));
    }
}

/// A wire. Dropped, it is closed.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Link {
    /// A wire to this port on loopback.
    ///
    /// # Panics
    /// Without a free port.
    #[must_use]
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, port, &accepting));
        Self { address, shared }
    }

    /// Its near end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Cuts it.
    pub fn cut(&self, how: Cut) {
        let mut state = self.shared.lock();
        state.cut = Some(how);
        if how == Cut::Closed {
            close(&mut state);
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Mends it. What had connections before the cut is told that they are gone: nothing old comes out of a new wire.
    pub fn mend(&self) {
        let mut state = self.shared.lock();
        if state.cut.take() == Some(Cut::Silent) {
            close(&mut state);
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        close(&mut state);
        drop(state);
        self.shared.changed.notify_all();
        // Wakes the thread that accepts, which ends.
        drop(TcpStream::connect(self.address));
    }
}

fn close(state: &mut State) {
    for socket in std::mem::take(&mut state.open).into_values().flatten() {
        // Fails when it is closed already.
        drop(socket.shutdown(Shutdown::Both));
    }
}

fn accept(listener: &TcpListener, port: u16, shared: &Arc<Shared>) {
    for near in listener.incoming().map_while(Result::ok) {
        shared.pass();
        if shared.lock().is_over {
            return;
        }
        if shared.lock().cut.is_some() {
            continue;
        }
        let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { continue };
        drop((near.set_nodelay(true), far.set_nodelay(true)));
        let copy = |socket: &TcpStream| socket.try_clone().expect("a socket can be shared");
        let mut state = shared.lock();
        let number = state.next;
        state.next += 1;
        state.open.insert(number, [copy(&near), copy(&far)]);
        drop(state);
        for (from, to) in [(copy(&near), copy(&far)), (far, near)] {
            let shared = Arc::clone(shared);
            thread::spawn(move || pump(from, to, &shared, number));
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared, number: u64) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        shared.pass();
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    if let Some(sockets) = shared.lock().open.remove(&number) {
        for socket in sockets {
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A server that sends back what it gets.
    fn echo() -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || {
                    let mut copy = stream.try_clone().unwrap();
                    drop(std::io::copy(&mut stream, &mut copy));
                });
            }
        });
        port
    }

    fn connect(link: &Link) -> TcpStream {
        let stream = TcpStream::connect(link.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn says(stream: &mut TcpStream) -> bool {
        let mut answer = [0; 5];
        stream.write_all(b"hello").is_ok() && stream.read_exact(&mut answer).is_ok()
    }

    #[test]
    fn a_wire_that_is_closed_is_noticed_and_one_that_is_mended_passes() {
        let link = Link::to(echo());
        let mut old = connect(&link);
        assert!(says(&mut old));
        link.cut(Cut::Closed);
        assert!(!says(&mut old));
        assert!(!says(&mut connect(&link)));
        link.mend();
        assert!(says(&mut connect(&link)) && !says(&mut old));
    }

    #[test]
    fn a_silent_wire_tells_nobody() {
        let link = Link::to(echo());
        let mut old = connect(&link);
        assert!(says(&mut old));
        link.cut(Cut::Silent);
        old.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        old.write_all(b"hello").unwrap();
        let silence = old.read(&mut [0; 5]).unwrap_err().kind();
        assert!(matches!(silence, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut));
        link.mend();
        assert!(says(&mut connect(&link)));
    }
}
