//! A transport: a client's socket with its codec and its two buffers. Knows bytes, not sessions.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::broker::transport::{Origin, Parked, Transport};
use crate::mqtt::codec::{Decoder, EncodeError, Encoder, Envelope, encode_publish};
use crate::mqtt::error::DecodeError;
use crate::mqtt::packet::{Connect, Packet};
use crate::session::event::Transmit;

/// Bytes that the first read of a quiet client takes; doubled while reads come back full. A message holds
/// on to the read that it came in, so quiet clients must not read into large buffers.
const READ_MIN: usize = 1 << 10;

/// Bytes that one read of a busy client takes.
const READ_MAX: usize = 32 << 10;

/// How long a closed transport may take to write what it still has and to hear the client's FIN.
const LINGER: Duration = Duration::from_secs(2);

/// A client's transport.
pub(super) struct Wire {
    transport: Transport,
    pub(super) origin: Origin,
    decoder: Decoder,
    encoder: Encoder,
    input: BytesMut,
    /// Bytes that the next read asks for.
    read_size: usize,
    pub(super) output: BytesMut,
    /// Whether anything was ever written: then closing waits until the client has it.
    spoke: bool,
}

impl Wire {
    /// The transport of the client that sent `connect`; `read_ahead` came behind it.
    pub(super) fn new(
        transport: Parked,
        origin: Origin,
        connect: &Connect,
        packet_size_max: u32,
        read_ahead: BytesMut,
    ) -> io::Result<Self> {
        Ok(Self {
            transport: transport.resume()?,
            origin,
            decoder: Decoder::connected(connect.version, packet_size_max),
            encoder: Encoder::for_client(connect),
            input: read_ahead,
            read_size: READ_MIN,
            output: BytesMut::new(),
            spoke: false,
        })
    }

    /// The next whole packet that was read.
    pub(super) fn next_packet(&mut self) -> Result<Option<Packet>, DecodeError> {
        if self.input.is_empty() {
            return Ok(None);
        }
        self.decoder.decode(&mut self.input)
    }

    /// One read. `Ok(0)` is the client's FIN. Nothing is reserved while nothing has come.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.transport.poll_read_ready(cx))?;
        if self.input.is_empty() {
            // Not the old buffer: messages of earlier reads may still hold on to it.
            self.input = BytesMut::new();
        }
        let announced = self.decoder.announced(&self.input).ok().flatten().unwrap_or(0);
        let missing = announced.saturating_sub(self.input.len()).min(READ_MAX);
        self.input.reserve(self.read_size.max(missing));
        let room = self.input.capacity() - self.input.len();
        // Not `try_read_buf`: this one knows that a read which leaves room has emptied the socket, and
        // saves the next one, which would only find that out.
        let Poll::Ready(read) = pin!(self.transport.read_buf(&mut self.input)).poll(cx) else {
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
            return Poll::Pending;
        };
        let len = read?;
        self.read_size = match len {
            _ if len >= room => (self.read_size * 2).min(READ_MAX),
            _ if len < room / 4 => (self.read_size / 2).max(READ_MIN),
            _ => self.read_size,
        };
        Poll::Ready(Ok(len))
    }

    /// Appends a control packet.
    pub(super) fn send(&mut self, packet: &Packet) -> Result<usize, EncodeError> {
        self.encoder.encode(packet, &mut self.output)
    }

    /// Appends a PUBLISH.
    pub(super) fn transmit(&mut self, transmit: &Transmit) -> Result<usize, EncodeError> {
        let envelope = Envelope {
            dup: transmit.dup,
            qos: transmit.qos,
            retain: transmit.retain,
            packet_id: transmit.packet_id,
            expiry_s: transmit.expiry_s,
            subscription_ids: transmit.subscription_ids.as_slice(),
            alias: transmit.alias,
        };
        encode_publish(
            &mut self.output,
            self.encoder.version,
            &transmit.message,
            &envelope,
        )
    }

    /// Writes as much as the socket takes; how much that was.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<usize> {
        let mut written = 0;
        while !self.output.is_empty() {
            match Pin::new(&mut self.transport).poll_write(cx, &self.output) {
                Poll::Pending => return Ok(written),
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(len)) => {
                    self.output.advance(len);
                    written += len;
                    self.spoke = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        // What a layer below still has, it writes when the socket takes more: this turn is woken then.
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.transport).poll_flush(cx) {
            return Err(error);
        }
        if self.output.capacity() > 0 {
            // An idle client costs no outbox.
            self.output = BytesMut::new();
        }
        Ok(written)
    }

    /// Closes the transport so that the client reads what was sent to it: the rest is written and its
    /// FIN awaited, both under one deadline. Closing at once would answer its unread bytes with a reset,
    /// which takes the last packets along.
    pub(super) fn close(mut self) {
        // Nobody is to be woken: what the socket does not take now is written by whoever lingers.
        let _ = self.flush(&mut Context::from_waker(Waker::noop()));
        // A client may have sent its DISCONNECT behind its CONNECT: its CONNACK is still to be written,
        // and a socket that was just registered does not take it yet.
        if self.spoke || !self.output.is_empty() {
            tokio::task::spawn_local(async move {
                // Whatever goes wrong here, the socket is closed when this ends.
                let _ = tokio::time::timeout(LINGER, self.linger()).await;
            });
        }
    }

    async fn linger(&mut self) -> io::Result<()> {
        self.transport.write_all_buf(&mut self.output).await?;
        self.transport.shutdown().await?;
        let mut rest = [0; 512];
        while self.transport.read(&mut rest).await? > 0 {}
        Ok(())
    }
}
