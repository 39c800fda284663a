//! HTTP connections, bounded: how many, how long, how slow. One request a connection. Knows no path.

use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::serve::Listener;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Connections served at once on one listener; more wait in the kernel's queue.
const CLIENTS: usize = 64;
/// Time in which a request's head must have come.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Time in which a connection must be over, body, answer and all.
const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// Who is at the other end, in words; none where the system doesn't say.
#[derive(Clone, Debug)]
pub(crate) struct Peer(pub(crate) Option<String>);

/// A connection whose other end may be known.
trait Known {
    fn peer(&self) -> Peer;
}

impl Known for UnixStream {
    fn peer(&self) -> Peer {
        let said = |credentials: tokio::net::unix::UCred| match credentials.pid() {
            Some(pid) => format!("uid {}, pid {pid}", credentials.uid()),
            None => format!("uid {}", credentials.uid()),
        };
        Peer(self.peer_cred().ok().map(said))
    }
}

impl Known for TcpStream {
    fn peer(&self) -> Peer {
        Peer(None)
    }
}

/// Why a side door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Another process answers there.
    #[error("the admin socket {0} is in use by a running process; stop that, or choose another path in [admin] socket")]
    InUse(PathBuf),
    /// Something else than a socket is there.
    #[error("the admin socket {0} can't be made: there is a file of that name that is not a socket; remove it")]
    NotASocket(PathBuf),
    /// The file system refused.
    #[error("the admin socket {path} can't be made: {error}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What was said.
        error: io::Error,
    },
    /// The metrics address can't be bound.
    #[error("the metrics address {address} can't be bound: {error}; choose another in [admin] metrics")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// What was said.
        error: io::Error,
    },
}

/// A Unix socket that removes its file when it is dropped, if it is still its own.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl Door {
    /// Listen at `path`, mode 0600. A socket that nobody answers on is replaced.
    pub fn open(path: &Path) -> Result<Self, DoorError> {
        let fail = |error| DoorError::Socket { path: path.to_owned(), error };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(DoorError::NotASocket(path.to_owned())),
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(DoorError::InUse(path.to_owned()));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        let (listener, inode) = place(path).map_err(fail)?;
        Ok(Door { listener, path: path.to_owned(), inode })
    }

    /// Serve until the future is dropped, which removes the file.
    pub async fn serve(mut self, router: Router) {
        accept(&mut self.listener, router).await;
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let own = std::fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.inode);
        if own {
            // A file that stays behind is replaced at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Make the socket in a directory that only we may enter, then move it into place: nobody else can connect before
/// its mode is set, and the old file's name is never missing.
fn place(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let room = parent.join(format!(".kakei-{}-{nanos}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&room)?;
    let made = place_from(&room.join("s"), path);
    let _ = std::fs::remove_file(room.join("s"));
    std::fs::remove_dir(&room)?;
    made
}

fn place_from(fresh: &Path, path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let listener = UnixListener::bind(fresh)?;
    std::fs::set_permissions(fresh, std::fs::Permissions::from_mode(0o600))?;
    let found = std::fs::symlink_metadata(fresh)?;
    std::fs::rename(fresh, path)?;
    Ok((listener, (found.dev(), found.ino())))
}

/// Bind the metrics address.
pub async fn bind_metrics(address: SocketAddr) -> Result<TcpListener, DoorError> {
    TcpListener::bind(address).await.map_err(|error| DoorError::Metrics { address, error })
}

/// Serve on TCP until the future is dropped.
pub async fn serve_tcp(mut listener: TcpListener, router: Router) {
    accept(&mut listener, router).await;
}

/// `Listener::accept` rests after an error of its own accord, so that a missing descriptor makes no busy loop.
async fn accept<L: Listener<Io: Known>>(listener: &mut L, router: Router) {
    let permits = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
        let (stream, _) = listener.accept().await;
        let router = router.clone().layer(Extension(stream.peer()));
        tokio::spawn(async move {
            connection(stream, router).await;
            drop(permit);
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A client that went away or ran out of time learns nothing from us, and nobody else cares.
    let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as Blocking;

    use axum::routing::get;

    use super::*;

    fn room(name: &str) -> PathBuf {
        let room = std::env::temp_dir().join(format!("kakei-door-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&room);
        std::fs::create_dir(&room).unwrap();
        room
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn the_door_is_private_refuses_a_second_one_and_replaces_a_dead_one() {
        let room = room("life");
        let path = room.join("k.sock");
        runtime().block_on(async {
            let door = Door::open(&path).unwrap();
            let mode = std::fs::symlink_metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert!(matches!(Door::open(&path), Err(DoorError::InUse(_))));
            drop(door);
            assert!(!path.exists(), "the door takes its file along");
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            assert!(path.exists(), "a dead socket is left behind");
            let door = Door::open(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, "someone else's").unwrap();
            drop(door);
            assert!(path.exists(), "what isn't its own stays");
            assert!(matches!(Door::open(&path), Err(DoorError::NotASocket(_))));
        });
        assert_eq!(std::fs::read_dir(&room).unwrap().count(), 1, "no temporary directory stays");
        std::fs::remove_dir_all(room).unwrap();
    }

    #[test]
    fn a_client_that_says_nothing_does_not_keep_the_others_out() {
        let room = room("slow");
        let path = room.join("k.sock");
        runtime().block_on(async {
            let door = Door::open(&path).unwrap();
            let server = tokio::spawn(door.serve(Router::new().route("/", get(async || "hello"))));
            let ask = path.clone();
            let clients = tokio::task::spawn_blocking(move || {
                let silent: Vec<Blocking> = (0..CLIENTS / 2).map(|_| Blocking::connect(&ask).unwrap()).collect();
                let mut client = Blocking::connect(&ask).unwrap();
                client.write_all(b"GET / HTTP/1.1\r\nHost: k\r\n\r\n").unwrap();
                let mut answer = String::new();
                client.read_to_string(&mut answer).unwrap();
                drop(silent);
                answer
            });
            let answer = clients.await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
            server.abort();
            let _ = server.await;
            assert!(!path.exists(), "the socket goes with its server");
        });
        std::fs::remove_dir_all(room).unwrap();
    }
}
