//! Waiting for a future on a thread that has no async runtime. Polls nothing but the one future.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Run the future to its end, parking this thread meanwhile. Handles' futures need no reactor, so this is enough.
pub fn wait<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_from_another_thread_wakes_the_waiter() {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let other = thread::spawn(move || reply.send(7));
        assert_eq!(wait(answer), Ok(7));
        other.join().unwrap().unwrap();
    }
}
