//! A worker driven by arbitrary events through the seam, by a machine that keeps the seam's contract: it never panics,
//! asks only for what makes sense, its counters add up at every moment, and after a drain nothing is left.
//! Whether datagrams reach the right peer is the simulator's to know.
#![no_main]

use kakei_fuzz::document;
use kakei_fuzz::machine::Machine;
use kakei_fuzz::script::Script;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut script = Script::new(data);
    let mut machine = Machine::new(script.byte());
    machine.publish(document::drawn(&mut script));
    machine.step();
    machine.settle();
    while !script.is_empty() {
        machine.act(&mut script);
    }
    machine.step();
    machine.check_counters();
    machine.drain();
});
