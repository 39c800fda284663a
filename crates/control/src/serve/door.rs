//! The admin socket: a file that only those can open who may, and that goes with its process.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use kakei_config::AdminPeers;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tracing::{error, warn};

use super::guests::{Guest, Guests};
use super::{DoorError, accept};
use crate::access::{Credentials, Peer, Rules};

/// How often it is looked whether the file is there still.
const LOOK: Duration = Duration::from_secs(10);
/// The longest path that a socket can have.
const MAX_PATH: usize = 107;

/// A Unix socket that removes its file when it is dropped, if it is still its own.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
    /// That it can't be made again was said.
    complained: bool,
}

impl Door {
    /// Listen at `path`, mode 0600. A socket that nobody answers on is replaced.
    pub fn open(path: &Path) -> Result<Self, DoorError> {
        let fail = |error| DoorError::Socket { path: path.to_owned(), error };
        if path.as_os_str().len() > MAX_PATH {
            return Err(DoorError::TooLong(path.to_owned()));
        }
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(DoorError::NotASocket(path.to_owned())),
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(DoorError::InUse(path.to_owned()));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        let (listener, inode) = place(path).map_err(fail)?;
        Ok(Door { listener, path: path.to_owned(), inode, complained: false })
    }

    /// Serve until the future is dropped, which removes the file. Everybody may connect as long as the rules name somebody
    /// besides the process's own user; what each may do is asked with each request.
    pub(crate) async fn serve(mut self, router: Router, rules: watch::Receiver<Arc<Rules>>) {
        let (guests, mut changes) = (Guests::new(), rules.clone());
        loop {
            self.let_near(&changes.borrow_and_update().peers);
            let know = |stream: &UnixStream, guest: &Arc<Guest>| {
                Peer::process(credentials(stream), rules.clone(), Arc::clone(guest))
            };
            tokio::select! {
                () = accept(&mut self.listener, &guests, &router, know) => {}
                () = gone(&self.path) => self.place_again(),
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Somebody removed the file, and nobody can connect any more. Who is connected stays so.
    fn place_again(&mut self) {
        let path = self.path.display();
        match place(&self.path) {
            Ok((listener, inode)) => {
                warn!("the admin socket {path} was removed, and is there again");
                (self.listener, self.inode, self.complained) = (listener, inode, false);
            }
            Err(error) if !self.complained => {
                error!("the admin socket {path} was removed, and can't be made again: {error}");
                self.complained = true;
            }
            Err(_) => {}
        }
    }

    /// Have the file's mode let those connect who are named.
    fn let_near(&self, peers: &AdminPeers) {
        let is_named = !peers.read_only.is_empty() || !peers.read_write.is_empty();
        let mode = std::fs::Permissions::from_mode(if is_named { 0o666 } else { 0o600 });
        if self.is_own()
            && let Err(error) = std::fs::set_permissions(&self.path, mode)
        {
            error!("the mode of the admin socket {} can't be set: {error}", self.path.display());
        }
    }

    fn is_own(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.inode)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if self.is_own() {
            // A file that stays behind is replaced at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Ready when nothing has this name, as it is looked from time to time.
async fn gone(path: &Path) {
    loop {
        tokio::time::sleep(LOOK).await;
        if std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return;
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

fn credentials(stream: &UnixStream) -> Option<Credentials> {
    let said = stream.peer_cred().ok()?;
    Some(Credentials { uid: said.uid(), gid: said.gid(), pid: said.pid() })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as Blocking;

    use axum::routing::get;

    use super::*;
    use crate::serve::guests::CLIENTS;

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
            let named = AdminPeers { read_only: vec![kakei_config::PeerId::Uid(7)], ..AdminPeers::default() };
            door.let_near(&named);
            assert_eq!(std::fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
            door.let_near(&AdminPeers::default());
            assert_eq!(std::fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
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
    fn a_socket_that_was_removed_is_made_again_and_what_took_its_place_stays() {
        let room = room("removed");
        let path = room.join("k.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let door = Door::open(&path).unwrap();
            let named = AdminPeers { read_only: vec![kakei_config::PeerId::Uid(7)], ..AdminPeers::default() };
            let (_rules, rules) = watch::channel(Arc::new(Rules { own: 0, peers: named, ..Rules::default() }));
            let server = tokio::spawn(door.serve(Router::new().route("/", get(async || "hello")), rules));
            tokio::time::sleep(LOOK / 2).await;
            std::fs::remove_file(&path).unwrap();
            tokio::time::sleep(LOOK).await;
            assert!(Blocking::connect(&path).is_ok(), "it is there again");
            assert_eq!(std::fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, "someone else's").unwrap();
            tokio::time::sleep(LOOK * 2).await;
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "someone else's");
            server.abort();
            let _ = server.await;
        });
        std::fs::remove_dir_all(room).unwrap();
    }

    #[test]
    fn clients_that_say_nothing_do_not_keep_the_others_out() {
        let room = room("slow");
        let path = room.join("k.sock");
        runtime().block_on(async {
            let door = Door::open(&path).unwrap();
            let (_rules, rules) = watch::channel(Arc::new(Rules { own: 0, ..Rules::default() }));
            let server = tokio::spawn(door.serve(Router::new().route("/", get(async || "hello")), rules));
            let ask = path.clone();
            let clients = tokio::task::spawn_blocking(move || {
                let silent: Vec<Blocking> = (0..2 * CLIENTS).map(|_| Blocking::connect(&ask).unwrap()).collect();
                let began = std::time::Instant::now();
                let mut client = Blocking::connect(&ask).unwrap();
                client.write_all(b"GET / HTTP/1.1\r\nHost: k\r\n\r\n").unwrap();
                let mut answer = String::new();
                client.read_to_string(&mut answer).unwrap();
                drop(silent);
                assert!(began.elapsed() < std::time::Duration::from_secs(2), "they are not waited for");
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
