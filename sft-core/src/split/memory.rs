//! A connection to a session of the server in the same process.

use std::collections::VecDeque;

use super::Session;
use super::message::Message;
use super::transport::Transport;
use crate::{Error, Result};

/// Carries messages to a session in memory, as the same bytes as on a network.
pub struct InMemory<'a> {
    session: Session<'a>,
    waiting: VecDeque<Vec<u8>>,
}

impl<'a> InMemory<'a> {
    /// A connection to a session that has seen no message.
    pub fn new(session: Session<'a>) -> Self {
        Self {
            session,
            waiting: VecDeque::new(),
        }
    }

    /// The session, when the device is done.
    pub fn into_session(self) -> Session<'a> {
        self.session
    }
}

impl Transport for InMemory<'_> {
    fn send(&mut self, message: Vec<u8>) -> Result<()> {
        for reply in self.session.handle(Message::decode(&message)?)? {
            self.waiting.push_back(reply.encode()?);
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Vec<u8>> {
        let silent = || Error::protocol("has nothing to say");
        self.waiting.pop_front().ok_or_else(silent)
    }
}
