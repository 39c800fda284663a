//! Running out of file descriptors: a process of its own, since the limit is the process's.
#![expect(clippy::unwrap_used, reason = "a failed expectation here is a failed test")]
#![expect(dead_code, reason = "the relay has more uses than this one")]

mod common;

use common::{Ask, House, eventually, key, peer};
use kakei_proxy::seam::Remote;
use kakei_runtime::engine::BindReason;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn limit(current: Option<u64>) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

#[test]
fn new_sockets_are_refused_and_the_old_go_on() {
    let (client, backend) = (peer("127.0.0.1:0"), peer("127.0.0.1:0"));
    let mut house = House::new(1);
    *house.shelf.backend.lock().unwrap() = Some(backend.local_addr().unwrap());
    let bind = key("127.0.0.1:0");
    house.publish(&[bind]);
    let front = house.engine.local_addr(bind).unwrap();
    let mut buffer = [0; 8];
    client.send_to(b"before", front).unwrap();
    let (_, flow) = backend.recv_from(&mut buffer).unwrap();

    let before = getrlimit(Resource::Nofile).current;
    limit(Some(0));
    house.ask(Ask::Open(Remote::Connected(backend.local_addr().unwrap())));
    house.ask(Ask::Open(Remote::AnyV4));
    house.ask(Ask::Connect(backend.local_addr().unwrap()));
    house.hear("open failed NoDescriptors", 3);
    let error = house.engine.prepare(&[key("127.0.0.2:0")]).unwrap_err();
    assert_eq!(error.reason, BindReason::NoDescriptors);
    backend.send_to(b"back", flow).unwrap();
    let (len, _) = client.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"back");
    client.send_to(b"during", front).unwrap();
    assert_eq!(backend.recv_from(&mut buffer).unwrap().1, flow);

    limit(before);
    house.ask(Ask::Open(Remote::AnyV4));
    house.hear("opened 0.0.0.0", 1);
    eventually(|| house.engine.machine_stats(0).unwrap().open_failures == 3, || "open failures".into());
}
