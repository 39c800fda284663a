//! Files that the operator names, opened by the control side's only thread: it waits for nobody at the other end of a pipe.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Open a file to be read. A pipe that nobody writes to is empty.
pub(crate) fn to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
}

/// Open a file to be written to at its end, or make it with these permissions. What a pipe doesn't take at once is an error.
///
/// # Errors
/// A pipe that nobody reads from, and whatever else the system says.
pub(crate) fn to_append(path: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits() as i32;
    let opened = OpenOptions::new().create(true).append(true).mode(mode).custom_flags(flags).open(path);
    opened.map_err(|error| match error.raw_os_error() {
        Some(number) if number == Errno::NXIO.raw_os_error() => io::Error::other("it is a pipe that nobody reads from"),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// A directory of a test's own.
    fn room(name: &str) -> PathBuf {
        let room = std::env::temp_dir().join(format!("kakei-opened-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&room).unwrap();
        room
    }

    #[test]
    fn nobody_is_waited_for_at_the_other_end_of_a_pipe() {
        let room = room("pipe");
        let path = room.join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let unread = to_append(&path, 0o600).unwrap_err();
        assert_eq!(unread.to_string(), "it is a pipe that nobody reads from");
        let (mut reader, mut text) = (to_read(&path).unwrap(), String::new());
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "");
        // With somebody there it is as good as a file.
        to_append(&path, 0o600).unwrap().write_all(b"a").unwrap();
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"a");
        // A full one is an error at once.
        let mut writer = to_append(&path, 0o600).unwrap();
        let full = (0..10_000).find_map(|_| writer.write_all(&[b'x'; 1000]).err());
        assert_eq!(full.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        std::fs::remove_dir_all(room).unwrap();
    }

    #[test]
    fn a_file_is_made_with_its_permissions_and_written_to_at_its_end() {
        let room = room("file");
        let path = room.join("file");
        for word in ["a", "b"] {
            to_append(&path, 0o600).unwrap().write_all(word.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "ab");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(room).unwrap();
    }
}
