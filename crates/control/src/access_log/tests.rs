//! Lines and a sink that takes them in parts, late, or not at all.

use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

fn output(sink: Sink) -> (Output, Sender<Message>) {
    let (messages, inbox) = channel();
    let output =
        Output { inbox, sink, format: LogFormat::Json, torn: Vec::new(), counts: Arc::default(), complained: false };
    (output, messages)
}

fn scripted(script: impl IntoIterator<Item = io::Result<usize>>) -> (Sink, Receiver<Vec<u8>>) {
    let (taken, read) = channel();
    (Sink::Scripted(script.into_iter().collect(), taken), read)
}

fn text(read: &Receiver<Vec<u8>>) -> String {
    String::from_utf8(read.try_iter().flatten().collect()).unwrap()
}

fn counted(output: &Output) -> (u64, u64) {
    (output.counts.written.load(Ordering::Relaxed), output.counts.lost.load(Ordering::Relaxed))
}

fn full() -> io::Result<usize> {
    Err(io::ErrorKind::StorageFull.into())
}

#[test]
fn a_line_that_was_begun_is_ended_before_the_next_one() {
    let (sink, read) = scripted([Ok(6), full(), full(), Ok(1), full()]);
    let (mut output, _messages) = output(sink);
    output.write(b"one\ntwo\nthree\n");
    assert_eq!((text(&read).as_str(), counted(&output)), ("one\ntw", (1, 1)));
    output.write(b"four\n");
    assert_eq!(counted(&output), (1, 2), "still full");
    output.write(b"five\n");
    assert_eq!((text(&read).as_str(), counted(&output)), ("o", (1, 3)), "full again");
    output.write(b"six\n");
    assert_eq!((text(&read).as_str(), counted(&output)), ("\nsix\n", (3, 3)), "all lines are counted");
}

#[test]
fn lines_of_a_sink_that_takes_nothing_more_can_be_sent_elsewhere() {
    let room = std::env::temp_dir().join(format!("kakei-log-stuck-{}", std::process::id()));
    std::fs::create_dir_all(&room).unwrap();
    let (pipe, file): (PathBuf, PathBuf) = (room.join("pipe"), room.join("file"));
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _reader = crate::opened::to_read(&pipe).unwrap();
    let (mut output, messages) = output(Sink::open(pipe.to_str()).unwrap());
    let counts = Arc::clone(&output.counts);
    let writer = std::thread::spawn(move || {
        // More than it holds.
        output.write(&b"a line that is rather long, and as long as all others\n".repeat(20_000));
        output
    });
    let started = Instant::now();
    while counts.written.load(Ordering::Relaxed) == 0 {
        assert!(started.elapsed() < Duration::from_secs(10), "it takes something");
        std::thread::yield_now();
    }
    let elsewhere = Sink::open(file.to_str()).unwrap();
    messages.send(Message::Retarget(Target(elsewhere, LogFormat::Json))).unwrap();
    let output = writer.join().unwrap();
    let (written, lost) = counted(&output);
    assert_eq!((written + lost, lost <= 1), (20_000, true), "but for the one that was begun");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.lines().count() > 10_000 && text.lines().all(|line| line.starts_with("a line")), "whole lines");
    std::fs::remove_dir_all(room).unwrap();
}

#[test]
fn another_format_or_no_log_takes_over_nothing() {
    for (sink, format) in [(Sink::Nowhere, LogFormat::Json), (scripted([]).0, LogFormat::Text)] {
        let (stuck, read) = scripted([Ok(6), Err(io::ErrorKind::WouldBlock.into())]);
        let (mut output, messages) = output(stuck);
        messages.send(Message::Retarget(Target(sink, format))).unwrap();
        output.write(b"one\ntwo\nthree\n");
        assert_eq!((text(&read).as_str(), counted(&output)), ("one\ntw", (1, 2)));
    }
}
