//! Generations over a real file system: what comes back, and what is done with what is damaged.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;

fn room(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("kakei-store-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    directory
}

fn document(backends: u64) -> Document {
    let backends: Vec<String> = (0..backends).map(|n| format!("\"127.0.0.1:{}\"", 1000 + n)).collect();
    let text = format!("[clusters.c]\nbackends = [{}]\nslow_start = \"1500ms\"", backends.join(", "));
    kakei_config::parse_toml(&text).unwrap()
}

fn entry(number: u64) -> Entry {
    let (at, origin) = ("2026-01-31T23:59:59.999Z".to_owned(), "api".to_owned());
    let (by, message) = (Some("uid 0, pid 7".to_owned()), Some("because".to_owned()));
    let changes = vec!["c".to_owned()];
    Entry { generation: Generation(number), at, origin, by, message, changes, ..Entry::default() }
}

/// Keep the generations of this range, each with as many backends as its number says.
fn fill(store: &mut Store, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let (before, after) = (document(number - 1), document(number));
        store.commit(&entry(number), &kakei_config::diff(&before, &after), &after).unwrap();
    }
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory.join("generations")).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The files of a store that is open still.
fn copied(directory: &Path) -> Memory {
    let mut memory = Memory::default();
    for name in files(directory) {
        let text = std::fs::read_to_string(directory.join("generations").join(&name)).unwrap();
        memory.put(&name, &mut [text].into_iter()).unwrap();
    }
    memory
}

#[test]
fn each_generation_comes_back_as_it_was() {
    let directory = room("round");
    let mut store = Store::open(&directory).unwrap();
    assert!(store.load().unwrap().last.is_none(), "nothing at first");
    assert_eq!(store.next(), Generation(1));
    fill(&mut store, 1..=5);
    drop(store);
    let mut store = Store::open(&directory).unwrap();
    let found = store.load().unwrap();
    assert_eq!(found.last, Some((entry(5), document(5))));
    assert_eq!(found.entries, (1..=5).map(entry).collect::<Vec<_>>());
    assert!(found.skipped.is_empty());
    for number in 1..=5 {
        assert_eq!(store.document(Generation(number)).unwrap(), Some(document(number)), "generation {number}");
    }
    assert_eq!(store.document(Generation(6)).unwrap(), None);
    assert_eq!(store.next(), Generation(6));
    fill(&mut store, 6..=7);
    assert_eq!(store.load().unwrap().last, Some((entry(7), document(7))));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn memory_keeps_them_as_well() {
    let mut store = Store::in_memory();
    fill(&mut store, 1..=3);
    assert_eq!(store.document(Generation(2)).unwrap(), Some(document(2)));
    assert_eq!(store.load().unwrap().last, Some((entry(3), document(3))));
}

#[test]
fn objects_that_go_and_sections_that_change_come_back_so() {
    let mut store = Store::in_memory();
    let mut both = document(2);
    both.clusters.insert("d".into(), document(1).clusters[&"c".into()].clone());
    both.workers.pin = true;
    let steps = [document(2), both.clone(), document(2), Document::default(), both];
    let mut before = Document::default();
    for (number, after) in (1..).zip(&steps) {
        store.commit(&entry(number), &kakei_config::diff(&before, after), after).unwrap();
        before = after.clone();
    }
    for (number, after) in (1..).zip(&steps) {
        assert_eq!(store.document(Generation(number)).unwrap().as_ref(), Some(after), "generation {number}");
    }
}

#[test]
fn what_is_torn_or_foreign_is_said_and_left_out() {
    let directory = room("damaged");
    let mut store = Store::open(&directory).unwrap();
    fill(&mut store, 1..=4);
    drop(store);
    let file = |number| directory.join("generations").join(file::name(number));
    std::fs::write(directory.join("generations/00000000000000000005.json.new"), "{\"schema\": 1, \"gen").unwrap();
    std::fs::write(directory.join("generations/notes.txt"), "mine").unwrap();
    let whole = std::fs::read_to_string(file(4)).unwrap();
    for cut in [0, 1, whole.len() / 2, whole.len() - 3] {
        std::fs::write(file(4), &whole[..cut]).unwrap();
        let mut store = Store::open(&directory).unwrap();
        let found = store.load().unwrap();
        assert_eq!(found.last, Some((entry(3), document(3))), "cut at {cut}");
        assert_eq!(found.skipped.len(), 2, "the torn one and the foreign one: {:?}", found.skipped);
        assert_eq!(store.next(), Generation(5), "a number is never given twice");
    }
    let other = whole.replace("\"schema\":2", "\"schema\":9");
    assert_ne!(other, whole);
    for wrong in [other, std::fs::read_to_string(file(2)).unwrap(), "[]".to_owned()] {
        std::fs::write(file(4), wrong).unwrap();
        assert_eq!(Store::open(&directory).unwrap().load().unwrap().last, Some((entry(3), document(3))));
    }
    assert!(!files(&directory).iter().any(|name| name.ends_with(".new")), "what never was whole is removed");
    // Without the third, what builds on it can't be read; a later start writes whole again.
    std::fs::write(file(4), whole).unwrap();
    std::fs::write(file(3), "").unwrap();
    let mut store = Store::open(&directory).unwrap();
    assert_eq!(store.load().unwrap().last, Some((entry(2), document(2))));
    store.commit(&entry(5), &[], &document(5)).unwrap();
    assert_eq!(store.load().unwrap().last, Some((entry(5), document(5))));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_oldest_go_and_what_is_promised_stays() {
    let directory = room("prune");
    let mut store = Store::open(&directory).unwrap();
    let kept = GENERATIONS_KEPT as u64;
    let many = 3 * kept;
    // Each start writes a whole one, so that there are some to build on.
    for first in (1..many).step_by(10) {
        drop(store);
        store = Store::open(&directory).unwrap();
        store.load().unwrap();
        fill(&mut store, first..=(first + 9).min(many));
    }
    let names = files(&directory).len() as u64;
    assert!((kept..kept + 10).contains(&names), "{names} files");
    for number in many - kept + 1..=many {
        assert_eq!(store.document(Generation(number)).unwrap(), Some(document(number)), "generation {number}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn differences_that_outgrow_the_whole_are_written_whole() {
    let directory = room("outgrown");
    let mut store = Store::open(&directory).unwrap();
    let bytes =
        |number: u64| std::fs::metadata(directory.join("generations").join(file::name(number))).unwrap().len() as usize;
    let many = document(200);
    store.commit(&entry(1), &kakei_config::diff(&Document::default(), &many), &many).unwrap();
    let mut long = entry(2);
    long.message = Some("x".repeat(SMALL));
    store.commit(&long, &[], &many).unwrap();
    store.commit(&entry(3), &[], &many).unwrap();
    assert!(bytes(2) < bytes(1).max(SMALL) + SMALL && bytes(3) == bytes(1), "{} {} {}", bytes(1), bytes(2), bytes(3));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_directory_that_takes_no_file_is_an_error_and_keeps_what_was() {
    let directory = room("blocked");
    let mut store = Store::open(&directory).unwrap();
    fill(&mut store, 1..=1);
    // A directory where the temporary file would go.
    std::fs::create_dir(directory.join("generations").join(format!("{}.new", file::name(2)))).unwrap();
    let refused = store.commit(&entry(2), &[], &document(2));
    assert!(matches!(refused, Err(StoreError::Io { doing: "written", .. })));
    assert_eq!(store.load().unwrap().last, Some((entry(1), document(1))));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn one_that_was_never_published_is_forgotten_and_a_confirmed_one_stays_so() {
    let mut store = Store::in_memory();
    let waits = Entry { confirm_by: Some(99), ..entry(1) };
    store.commit(&waits, &[], &document(1)).unwrap();
    fill(&mut store, 2..=2);
    store.discard(Generation(2)).unwrap();
    assert_eq!(store.load().unwrap().last, Some((waits, document(1))));
    store.amend(&entry(1)).unwrap();
    fill(&mut store, 2..=2);
    assert_eq!(store.load().unwrap().entries, [entry(1), entry(2)]);
}

#[test]
fn what_builds_on_a_file_that_somebody_removed_is_written_whole() {
    let directory = room("removed");
    let mut store = Store::open(&directory).unwrap();
    fill(&mut store, 1..=3);
    let file = |number| directory.join("generations").join(file::name(number));
    // The whole one that it builds on, then the newest one.
    for (gone, next) in [(1, 4), (5, 6)] {
        std::fs::remove_file(file(gone)).unwrap();
        fill(&mut store, next..=next + 1);
        let found = Store::on(copied(&directory)).load().unwrap();
        assert_eq!(found.last, Some((entry(next + 1), document(next + 1))), "without {gone}: {:?}", found.skipped);
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn what_builds_on_a_file_that_was_found_damaged_is_written_whole() {
    let directory = room("found-damaged");
    let mut store = Store::open(&directory).unwrap();
    fill(&mut store, 1..=4);
    let name = directory.join("generations").join(file::name(3));
    let text = std::fs::read_to_string(&name).unwrap();
    std::fs::write(&name, text.replacen('{', "x", 2)).unwrap();
    assert_eq!(store.document(Generation(2)).unwrap(), Some(document(2)));
    for (number, is_there) in [(3, true), (4, true), (9, false)] {
        assert_eq!(store.document(Generation(number)).unwrap(), None);
        assert_eq!(store.has(Generation(number)), is_there, "what is damaged is told from what is not kept");
    }
    fill(&mut store, 5..=5);
    drop(store);
    let mut store = Store::open(&directory).unwrap();
    let last = store.load().unwrap().last.map(|(entry, document)| (entry.generation, document));
    assert_eq!(last, Some((Generation(5), document(5))), "what was acknowledged comes back");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_directory_that_was_moved_away_is_not_written_by_its_old_name() {
    let (directory, away) = (room("moved"), room("moved-away"));
    let mut store = Store::open(&directory).unwrap();
    fill(&mut store, 1..=2);
    std::fs::rename(&directory, &away).unwrap();
    let refused = |store: &mut Store| store.commit(&entry(3), &[], &document(3)).unwrap_err().to_string();
    let said = refused(&mut store);
    assert!(said.contains("was moved or removed"), "{said}");
    // Another process makes it anew.
    let mut other = Store::open(&directory).unwrap();
    fill(&mut other, 1..=1);
    assert!(refused(&mut store).contains("was moved or removed"));
    assert_eq!(files(&directory), [file::name(1)], "nothing of the first process's");
    drop(other);
    std::fs::remove_dir_all(&directory).unwrap();
    std::fs::rename(&away, &directory).unwrap();
    fill(&mut store, 3..=3);
    assert_eq!(store.load().unwrap().last, Some((entry(3), document(3))));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn where_pruning_ends_halfway_nothing_is_left_that_can_not_be_read() {
    let kept = GENERATIONS_KEPT as u64;
    let files = Rc::new(RefCell::new(Memory::default()));
    let mut store = Store::on(Dying { files: Rc::clone(&files), removals: 3 });
    fill(&mut store, 1..=10);
    // Two to build on, so that the first ten may go.
    store.base = None;
    fill(&mut store, 11..=kept + 11);
    assert_eq!(files.borrow().names().unwrap().len() as u64, kept + 11 - 3, "three went");
    let found = Store::on(Dying { files, removals: 0 }).load().unwrap();
    assert!(found.skipped.is_empty(), "{:?}", found.skipped);
}

#[test]
fn a_second_process_is_kept_out() {
    let directory = room("locked");
    let store = Store::open(&directory).unwrap();
    assert!(matches!(Store::open(&directory), Err(StoreError::InUse(_))));
    drop(store);
    assert!(Store::open(&directory).is_ok());
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn what_was_applied_last_stays_whatever_becomes_of_its_generation() {
    let directory = room("applied");
    let mut store = Store::open(&directory).unwrap();
    assert_eq!(store.applied().unwrap(), None);
    fill(&mut store, 1..=1);
    store.keep_applied(&document(1)).unwrap();
    let inode = |name: &str| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(directory.join("generations").join(name)).unwrap().ino()
    };
    assert_eq!(inode(APPLIED), inode(&file::name(1)), "it is written once");
    store.amend(&Entry { message: None, ..entry(1) }).unwrap();
    assert_eq!(store.applied().unwrap(), Some(document(1)));
    // One that is written as what differs is no document of its own.
    fill(&mut store, 2..=2);
    store.keep_applied(&document(2)).unwrap();
    assert_eq!(store.applied().unwrap(), Some(document(2)));
    // A name that was left behind by a crash stands for a generation that is still there.
    let generations = directory.join("generations");
    std::fs::hard_link(generations.join(file::name(1)), generations.join(format!("{APPLIED}.new"))).unwrap();
    fill(&mut store, 3..=3);
    store.keep_applied(&document(3)).unwrap();
    std::fs::hard_link(generations.join(file::name(1)), generations.join(format!("{APPLIED}.new"))).unwrap();
    drop(store);
    let mut store = Store::open(&directory).unwrap();
    assert_eq!(store.load().unwrap().last, Some((entry(3), document(3))));
    assert_eq!(store.document(Generation(1)).unwrap(), Some(document(1)));
    assert_eq!(store.applied().unwrap(), Some(document(3)));
    // And the one of which it is the whole: it is forgotten, and this is not.
    fill(&mut store, 4..=4);
    store.keep_applied(&document(4)).unwrap();
    store.discard(Generation(4)).unwrap();
    assert_eq!((store.document(Generation(4)).unwrap(), store.applied().unwrap()), (None, Some(document(4))));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_leftover_link_of_a_whole_one_is_no_hindrance() {
    let directory = room("leftover");
    let mut store = Store::open(&directory).unwrap();
    fill(&mut store, 1..=1);
    let generations = directory.join("generations");
    std::fs::write(generations.join(format!("{APPLIED}.new")), "torn").unwrap();
    store.keep_applied(&document(1)).unwrap();
    assert_eq!(store.applied().unwrap(), Some(document(1)));
    assert_eq!(files(&directory), [file::name(1), APPLIED.to_owned()]);
    // As it was written before it could be a generation's file.
    let lines: String = file::lines(&document(2)).collect();
    std::fs::write(generations.join(APPLIED), lines).unwrap();
    assert_eq!(store.applied().unwrap(), Some(document(2)));
    std::fs::remove_dir_all(directory).unwrap();
}

/// Files that can be removed for some time only, as those of a process that ends.
#[derive(Debug)]
struct Dying {
    files: Rc<RefCell<Memory>>,
    removals: usize,
}

impl Files for Dying {
    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.files.borrow().names()
    }

    fn read(&self, name: &str) -> io::Result<String> {
        self.files.borrow().read(name)
    }

    fn put(&mut self, name: &str, parts: &mut dyn Iterator<Item = String>) -> io::Result<()> {
        self.files.borrow_mut().put(name, parts)
    }

    fn sync(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.files.borrow_mut().rename(from, to)
    }

    fn link(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.files.borrow_mut().link(from, to)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.removals = self.removals.checked_sub(1).ok_or(io::ErrorKind::PermissionDenied)?;
        self.files.borrow_mut().remove(name)
    }

    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Files on a system that knows no second name of a file.
#[derive(Debug, Default)]
struct Unlinked(Memory);

impl Files for Unlinked {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.0.names()
    }

    fn read(&self, name: &str) -> io::Result<String> {
        self.0.read(name)
    }

    fn put(&mut self, name: &str, parts: &mut dyn Iterator<Item = String>) -> io::Result<()> {
        self.0.put(name, parts)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.0.sync(name)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn link(&mut self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn settle(&mut self) -> io::Result<()> {
        self.0.settle()
    }
}

#[test]
fn what_was_applied_last_is_written_anew_where_a_file_has_one_name_only() {
    let mut store = Store::on(Unlinked::default());
    fill(&mut store, 1..=1);
    store.keep_applied(&document(1)).unwrap();
    assert_eq!(store.applied().unwrap(), Some(document(1)));
    assert_eq!(store.load().unwrap().last, Some((entry(1), document(1))));
}

#[test]
fn a_number_behind_which_none_can_come_is_no_generations() {
    let directory = room("largest");
    let mut store = Store::open(&directory).unwrap();
    fill(&mut store, 1..=2);
    drop(store);
    let stray = |number: u64| directory.join("generations").join(file::name(number));
    std::fs::write(stray(u64::MAX), "stray").unwrap();
    let mut store = Store::open(&directory).unwrap();
    let found = store.load().unwrap();
    assert_eq!((found.last.map(|(entry, _)| entry), store.next()), (Some(entry(2)), Generation(3)));
    assert!(found.skipped.len() == 1 && found.skipped[0].contains("remove the file"), "{:?}", found.skipped);
    drop(store);
    // What is there for every number below stays, and nothing takes its place.
    std::fs::write(stray(u64::MAX - 1), "stray").unwrap();
    let mut store = Store::open(&directory).unwrap();
    store.load().unwrap();
    let full = store.commit(&entry(store.next().0), &[], &document(3)).unwrap_err();
    assert!(full.to_string().contains("no generation can come behind") && store.next().0 == u64::MAX, "{full}");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_damaged_document_that_was_applied_last_is_told_from_none() {
    let directory = room("applied-damaged");
    let mut store = Store::open(&directory).unwrap();
    assert!(store.check_applied().is_ok() && store.applied().unwrap().is_none());
    fill(&mut store, 1..=2);
    store.keep_applied(&document(2)).unwrap();
    assert!(store.check_applied().is_ok());
    let path = directory.join("generations").join(APPLIED);
    let whole = std::fs::read_to_string(&path).unwrap();
    for damaged in ["", "{}", &whole[..whole.len() / 2], &whole.replacen("\"kind\"", "\"kin\"", 1)] {
        std::fs::write(&path, damaged).unwrap();
        let said = store.applied().unwrap_err().to_string();
        assert!(said.contains("applied.json can't be read: ") && store.check_applied().is_err(), "{said}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}
