//! A connection to a server in the same process.

use std::collections::VecDeque;

use super::message::Message;
use super::transport::Transport;
use crate::{Error, Result};

/// The server's side for one device in one round: messages in, messages out.
pub trait Serve {
    /// What the server answers to a message from the device.
    ///
    /// # Errors
    /// A message that is not to be expected, or does not fit plan and model; the server's side is
    /// then of no more use.
    fn handle(&mut self, message: Message) -> Result<Vec<Message>>;

    /// Whether the device has nothing more to send in this round.
    fn is_done(&self) -> bool;

    /// Lets the device end the round at its next mini-batch, with what it did so far, where it does mini-batches
    /// with the server.
    fn end_early(&mut self) {}
}

/// Carries messages to a server in memory, as the same bytes as on a network.
pub struct InMemory<S> {
    server: S,
    waiting: VecDeque<Vec<u8>>,
}

impl<S: Serve> InMemory<S> {
    /// A connection to a server's side that has seen no message.
    pub fn new(server: S) -> Self {
        Self {
            server,
            waiting: VecDeque::new(),
        }
    }

    /// The server's side, when the device is done.
    pub fn into_server(self) -> S {
        self.server
    }
}

impl<S: Serve> Transport for InMemory<S> {
    fn send(&mut self, message: Vec<u8>) -> Result<()> {
        for reply in self.server.handle(Message::decode(&message)?)? {
            self.waiting.push_back(reply.encode()?);
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Vec<u8>> {
        let silent = || Error::protocol("has nothing to say");
        self.waiting.pop_front().ok_or_else(silent)
    }
}
