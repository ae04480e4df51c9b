//! MQTT in WebSocket frames (RFC 6455), as the server. Frames are taken apart where they were read and put
//! around what is written: no message is ever held, so their sizes need no bound and no memory.
//!
//! `[MQTT-6.0.0-1]` only binary data frames; `[MQTT-6.0.0-2]` frames and packets are cut independently.

mod frames;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::frames::{Frames, Violation};
use super::Transport;

/// Opcodes of the frames that a server writes.
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PONG: u8 = 10;

/// Status of a close without complaint.
const GOING_AWAY_IN_PEACE: u16 = 1000;

/// A WebSocket connection after its upgrade.
#[derive(Debug)]
pub struct WebSocket {
    below: Transport,
    /// What came behind the upgrade request.
    early: Bytes,
    incoming: Frames,
    /// Nothing more is read: the client has closed, or broken the rules.
    deaf: bool,
    /// Heads and control frames that are to be written before any payload.
    heads: Vec<u8>,
    /// Payload bytes still to be written of the frame that is open.
    open_frame_left: usize,
    /// A control frame that waits for the end of the open frame; a later one takes its place.
    answer: Option<Vec<u8>>,
    said_goodbye: bool,
}

impl WebSocket {
    /// Frames over an upgraded transport; `early` came behind the upgrade request.
    #[must_use]
    pub fn new(below: Transport, early: Bytes) -> Self {
        Self {
            below,
            early,
            incoming: Frames::default(),
            deaf: false,
            heads: Vec::new(),
            open_frame_left: 0,
            answer: None,
            said_goodbye: false,
        }
    }

    pub(super) fn below(&self) -> &Transport {
        &self.below
    }

    pub(super) fn below_mut(&mut self) -> &mut Transport {
        &mut self.below
    }

    pub(super) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf || !self.early.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.below.poll_read_ready(cx)
    }

    /// Reads payload. Nothing read means that the client has closed.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while !self.deaf && buf.remaining() > 0 {
            let before = buf.filled().len();
            if self.early.is_empty() {
                ready!(Pin::new(&mut self.below).poll_read(cx, buf))?;
                if buf.filled().len() == before {
                    break;
                }
            } else {
                let len = self.early.len().min(buf.remaining());
                buf.put_slice(&self.early.split_to(len));
            }
            let payload = match self.incoming.unframe(&mut buf.filled_mut()[before..]) {
                Ok(payload) => payload,
                Err(violation) => return Poll::Ready(Err(self.complain(violation, cx))),
            };
            buf.set_filled(before + payload);
            self.answer_control_frames(cx);
            if payload > 0 {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn complain(&mut self, violation: Violation, cx: &mut Context<'_>) -> io::Error {
        self.deaf = true;
        self.answer = Some(control_frame(CLOSE, &violation.status().to_be_bytes()));
        self.said_goodbye = true;
        // What the client does not take at once it does not get.
        let _ = self.poll_heads(cx);
        io::Error::new(io::ErrorKind::InvalidData, violation)
    }

    fn answer_control_frames(&mut self, cx: &mut Context<'_>) {
        let close = self.incoming.take_close();
        if let Some(ping) = self.incoming.take_ping() {
            self.answer = Some(control_frame(PONG, &ping));
        }
        if let Some(status) = close {
            self.deaf = true;
            self.answer = Some(control_frame(CLOSE, &status));
            self.said_goodbye = true;
        }
        if self.answer.is_some() {
            // Else by the flush of this turn.
            let _ = self.poll_heads(cx);
        }
    }

    /// Between two frames a control frame may be written.
    fn take_answer(&mut self) {
        if self.open_frame_left == 0
            && let Some(answer) = self.answer.take()
        {
            self.heads.extend_from_slice(&answer);
        }
    }

    fn poll_heads(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.take_answer();
        while !self.heads.is_empty() {
            let len = ready!(Pin::new(&mut self.below).poll_write(cx, &self.heads))?;
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.heads.drain(..len);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes payload; see the trait's implementation of [`Transport`] for what a partial write asks for.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.open_frame_left == 0 {
            self.take_answer();
            push_head(&mut self.heads, BINARY, buf.len());
            self.open_frame_left = buf.len();
        }
        let payload = &buf[..self.open_frame_left.min(buf.len())];
        loop {
            let below = Pin::new(&mut self.below);
            let len = if self.heads.is_empty() {
                ready!(below.poll_write(cx, payload))?
            } else {
                let both = [IoSlice::new(&self.heads), IoSlice::new(payload)];
                ready!(below.poll_write_vectored(cx, &both))?
            };
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_heads = len.min(self.heads.len());
            self.heads.drain(..of_heads);
            let taken = len - of_heads;
            if taken > 0 {
                self.open_frame_left -= taken;
                return Poll::Ready(Ok(taken));
            }
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_heads(cx))?;
        Pin::new(&mut self.below).poll_flush(cx)
    }

    /// Says goodbye and closes the sending direction of what lies below.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.said_goodbye, true) {
            self.answer = Some(control_frame(CLOSE, &GOING_AWAY_IN_PEACE.to_be_bytes()));
        }
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.below).poll_shutdown(cx)
    }
}

/// The head of a whole, unmasked frame (RFC 6455, 5.2).
fn push_head(out: &mut Vec<u8>, opcode: u8, len: usize) {
    out.push(0x80 | opcode);
    match len {
        0..=125 => out.push(len as u8),
        126..=0xFFFF => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

fn control_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(2 + payload.len());
    push_head(&mut frame, opcode, payload.len());
    frame.extend_from_slice(payload);
    frame
}
