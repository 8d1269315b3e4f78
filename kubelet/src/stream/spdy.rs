//! The server's side of a SPDY/3.1 connection: streams that a client opens.
//!
//! What is received of a stream is granted again as it is read, as the protocol says. What is sent does not wait for
//! such grants: the one implementation that clients use (Go's spdystream) never gives any, so that TCP alone keeps a sender
//! from being too fast, there and here. A stream whose reader is slow therefore holds up the connection, never the memory.

mod frame;
mod headers;

use super::idle::Idle;
use super::pipe;
use bytes::{Bytes, BytesMut};
use frame::{CONTROL, Control, HEAD, Head, Reset};
pub use headers::Headers;
use headers::{Packer, Unpacker};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// The most streams that are open at once.
const STREAMS: usize = 2048;
/// The most bytes of a data frame that are taken at once.
const PART: usize = 16 << 10;
/// How much is received before it is granted again: half of what a client may send at first.
const GRANT: u32 = 32 << 10;
/// The most answers that wait for a client that does not listen.
const ANSWERS: usize = 256;
/// How long a client may take to hang up after the connection has been closed here.
const CLOSING: Duration = Duration::from_secs(5);

/// Why a client is not understood: the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the SPDY client is not understood: {0}")]
pub struct Broken(&'static str);

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A stream that a client has opened. It must be accepted or refused.
pub struct Stream {
    /// Its number: odd, and higher than those of earlier ones.
    pub id: u32,
    /// The headers that it was opened with.
    pub headers: Headers,
    /// Cancelled when the client gives it up.
    pub reset: CancellationToken,
    incoming: mpsc::Receiver<Bytes>,
    outgoing: mpsc::Sender<Outgoing>,
}

impl Stream {
    /// The value of a header, in whatever case its name is.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    /// Take it.
    pub async fn accept(self) -> Accepted {
        // A client that is gone is noticed by whoever reads.
        let _ = self.outgoing.send(Outgoing::Reply(self.id)).await;
        Accepted {
            id: self.id,
            reset: self.reset,
            incoming: self.incoming,
            outgoing: self.outgoing,
        }
    }

    /// Do not take it.
    pub async fn refuse(self) {
        let _ = self.outgoing.send(Outgoing::Reset(self.id, Reset::Refused)).await;
    }
}

/// A stream that has been accepted. It must be finished or cancelled.
pub struct Accepted {
    id: u32,
    /// Cancelled when the client gives it up.
    pub reset: CancellationToken,
    incoming: mpsc::Receiver<Bytes>,
    outgoing: mpsc::Sender<Outgoing>,
}

impl Accepted {
    /// What the client says, until it has said all. To be taken once: later there is nothing.
    pub fn reader(&mut self) -> impl AsyncRead + Send + Unpin + 'static {
        let (_, nothing) = mpsc::channel(1);
        pipe::read(std::mem::replace(&mut self.incoming, nothing))
    }

    /// The same, in pieces.
    pub fn messages(&mut self) -> mpsc::Receiver<Bytes> {
        let (_, nothing) = mpsc::channel(1);
        std::mem::replace(&mut self.incoming, nothing)
    }

    /// What is said to the client.
    pub fn writer(&self) -> impl AsyncWrite + Send + Unpin + 'static {
        let id = self.id;
        pipe::Writer::new(self.outgoing.clone(), move |bytes: &[u8]| {
            Outgoing::Data(id, Bytes::copy_from_slice(bytes))
        })
    }

    /// All has been said.
    pub async fn finish(&self) {
        let _ = self.outgoing.send(Outgoing::Finish(self.id)).await;
    }

    /// Neither side has anything to say any more.
    pub async fn cancel(&self) {
        let _ = self.outgoing.send(Outgoing::Reset(self.id, Reset::Cancel)).await;
    }
}

enum Outgoing {
    Reply(u32),
    Data(u32, Bytes),
    Finish(u32),
    Reset(u32, Reset),
}

/// A stream that is open, at least in one direction.
struct Open {
    /// `None`: the client has said all.
    incoming: Option<mpsc::Sender<Bytes>>,
    /// All has been said here.
    finished: bool,
    /// What has been received and not granted again.
    received: u32,
    reset: CancellationToken,
}

/// What reading and writing share. Answers are kept here, because a reader that waited for the writer, whose client waits
/// for the reader, would wait for ever.
#[derive(Default)]
struct Shared {
    open: HashMap<u32, Open>,
    answers: BytesMut,
    /// What is granted again, by stream; 0 is the whole connection.
    grants: HashMap<u32, u32>,
    last: u32,
}

struct Session {
    shared: Mutex<Shared>,
    answer: Notify,
}

impl Session {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, put: impl FnOnce(&mut BytesMut)) -> Result<(), Broken> {
        let mut shared = self.shared();
        if shared.answers.len() > ANSWERS * 16 {
            return Err(Broken("it does not listen"));
        }
        put(&mut shared.answers);
        self.answer.notify_one();
        Ok(())
    }

    /// Bytes of a stream have been read: what is due is granted again.
    fn read(&self, id: u32, bytes: u32, granting: &mut u32) {
        let mut shared = self.shared();
        *granting += bytes;
        if *granting >= GRANT {
            *shared.grants.entry(0).or_default() += std::mem::take(granting);
            self.answer.notify_one();
        }
        let due = shared.open.get_mut(&id).map_or(0, |open| {
            open.received += bytes;
            if open.received < GRANT {
                0
            } else {
                std::mem::take(&mut open.received)
            }
        });
        if due > 0 {
            *shared.grants.entry(id).or_default() += due;
            self.answer.notify_one();
        }
    }

    fn take_answers(&self) -> BytesMut {
        let mut shared = self.shared();
        let mut answers = std::mem::take(&mut shared.answers);
        for (id, more) in std::mem::take(&mut shared.grants) {
            frame::put_window(&mut answers, id, more);
        }
        answers
    }
}

/// A connection: the streams that its client opens, and the work, which ends when the client is gone, or when all streams
/// and the receiver of new ones have been dropped and the connection has been closed in order.
pub fn connection<IO: AsyncRead + AsyncWrite>(
    io: IO,
    idle: Idle,
) -> (mpsc::Receiver<Stream>, impl Future<Output = ()>) {
    let (accepting, accepted) = mpsc::channel(STREAMS);
    let (outgoing, messages) = mpsc::channel(pipe::DEPTH);
    let work = async move {
        let session = Session {
            shared: Mutex::default(),
            answer: Notify::new(),
        };
        let (read, write) = tokio::io::split(io);
        // The reader must not keep the writer alive: new streams do.
        let weak = outgoing.downgrade();
        let open_until = accepting.clone();
        let holding = async {
            open_until.closed().await;
            drop(outgoing);
            std::future::pending::<()>().await;
        };
        let reading = receive(&session, read, &weak, &accepting, &idle);
        let writing = send(&session, write, messages, &idle);
        tokio::pin!(reading);
        let all_said = async {
            let failed = tokio::select! {
                read = &mut reading => read.err(),
                written = writing => match written {
                    // The client hangs up in its turn, so that nothing is lost on its way.
                    Ok(()) => tokio::time::timeout(CLOSING, reading).await.ok().and_then(Result::err),
                    Err(error) => Some(error.into()),
                }
            };
            if let Some(error) = failed {
                tracing::debug!(%error, "a SPDY connection ended");
            }
        };
        tokio::select! {
            () = all_said => {}
            () = holding => {}
            () = idle.expired() => tracing::debug!("a SPDY connection was idle for too long"),
        }
        session
            .shared()
            .open
            .values()
            .for_each(|open| open.reset.cancel());
    };
    (accepted, work)
}

async fn receive<IO: AsyncRead>(
    session: &Session,
    read: ReadHalf<IO>,
    outgoing: &mpsc::WeakSender<Outgoing>,
    accepting: &mpsc::Sender<Stream>,
    idle: &Idle,
) -> Result<(), Failed> {
    let mut read = BufReader::with_capacity(CONTROL, read);
    let mut unpacker = Unpacker::new();
    let mut granting = 0;
    loop {
        let mut head = [0; HEAD];
        if let Err(error) = read.read_exact(&mut head).await {
            let ended = error.kind() == std::io::ErrorKind::UnexpectedEof;
            return if ended { Ok(()) } else { Err(error.into()) };
        }
        match frame::head(head)? {
            Head::Data { stream, fin, length } => {
                idle.touch();
                data(session, &mut read, stream, length, &mut granting).await?;
                if fin {
                    finish(session, stream, true);
                }
            }
            Head::Control { kind, flags, length } => {
                let mut payload = vec![0; length];
                read.read_exact(&mut payload).await?;
                match frame::control(kind, flags, &payload)? {
                    Control::Open { stream, fin, block } => {
                        idle.touch();
                        let headers = unpacker.unpack(block)?;
                        opened(session, stream, headers, outgoing, accepting)?;
                        if fin {
                            finish(session, stream, true);
                        }
                    }
                    Control::Headers { stream, fin, block } => {
                        unpacker.unpack(block)?;
                        if fin {
                            finish(session, stream, true);
                        }
                    }
                    Control::Reset(stream) => {
                        if let Some(open) = session.shared().open.remove(&stream) {
                            open.reset.cancel();
                        }
                    }
                    // Even numbers are answers to this side's own, of which there are none.
                    Control::Ping(id) if id % 2 == 1 => session.answer(|out| frame::put_ping(out, id))?,
                    Control::Ping(_) | Control::Other => {}
                }
            }
        }
    }
}

/// A new stream: handed on, or refused if there are too many or nobody waits for any.
fn opened(
    session: &Session,
    id: u32,
    headers: Headers,
    outgoing: &mpsc::WeakSender<Outgoing>,
    accepting: &mpsc::Sender<Stream>,
) -> Result<(), Broken> {
    let mut shared = session.shared();
    if id.is_multiple_of(2) || id <= shared.last {
        return Err(Broken("its stream has a number that it cannot have"));
    }
    shared.last = id;
    let (sender, incoming) = mpsc::channel(2);
    let reset = CancellationToken::new();
    let stream = outgoing.upgrade().map(|outgoing| Stream {
        id,
        headers,
        reset: reset.clone(),
        incoming,
        outgoing,
    });
    let taken =
        shared.open.len() < STREAMS && stream.is_some_and(|stream| accepting.try_send(stream).is_ok());
    if taken {
        let open = Open {
            incoming: Some(sender),
            finished: false,
            received: 0,
            reset,
        };
        shared.open.insert(id, open);
        return Ok(());
    }
    drop(shared);
    session.answer(|out| frame::put_reset(out, id, Reset::Refused))
}

/// The bytes of a data frame, in parts, to whoever reads the stream.
async fn data(
    session: &Session,
    read: &mut (impl AsyncRead + Unpin),
    id: u32,
    mut length: usize,
    granting: &mut u32,
) -> Result<(), Failed> {
    while length > 0 {
        let mut part = vec![0; length.min(PART)];
        read.read_exact(&mut part).await?;
        length -= part.len();
        let received = u32::try_from(part.len()).expect("parts are short");
        let reader = session
            .shared()
            .open
            .get(&id)
            .and_then(|open| open.incoming.clone());
        // For a stream that is gone there is nobody to tell.
        if let Some(reader) = reader
            && reader.send(part.into()).await.is_err()
            && let Some(open) = session.shared().open.get_mut(&id)
        {
            open.incoming = None;
        }
        session.read(id, received, granting);
    }
    Ok(())
}

/// One side (the client, or this one) has said all on a stream.
fn finish(session: &Session, id: u32, client: bool) {
    let mut shared = session.shared();
    let Some(open) = shared.open.get_mut(&id) else {
        return;
    };
    match client {
        true => open.incoming = None,
        false => open.finished = true,
    }
    if open.finished && open.incoming.is_none() {
        shared.open.remove(&id);
    }
}

async fn send<IO: AsyncWrite>(
    session: &Session,
    mut write: WriteHalf<IO>,
    mut messages: mpsc::Receiver<Outgoing>,
    idle: &Idle,
) -> std::io::Result<()> {
    let mut packer = Packer::new();
    let mut out = BytesMut::with_capacity(2 * pipe::CHUNK);
    loop {
        let message = tokio::select! {
            message = messages.recv() => Some(message),
            () = session.answer.notified() => None,
        };
        out.unsplit(session.take_answers());
        match message {
            Some(Some(message)) => {
                idle.touch();
                put(session, &mut packer, &mut out, message);
                // What waits already goes along.
                while out.len() < pipe::CHUNK
                    && let Ok(message) = messages.try_recv()
                {
                    put(session, &mut packer, &mut out, message);
                }
            }
            Some(None) => break,
            None => {}
        }
        write.write_all_buf(&mut out).await?;
        write.flush().await?;
    }
    frame::put_go_away(&mut out, session.shared().last);
    write.write_all_buf(&mut out).await?;
    write.shutdown().await
}

fn put(session: &Session, packer: &mut Packer, out: &mut BytesMut, message: Outgoing) {
    let is_open = |id: &u32| session.shared().open.contains_key(id);
    match message {
        Outgoing::Reply(id) if is_open(&id) => frame::put_reply(out, id, &packer.pack(&[])),
        Outgoing::Data(id, bytes) if is_open(&id) => frame::put_data(out, id, false, &bytes),
        Outgoing::Finish(id) if is_open(&id) => {
            frame::put_data(out, id, true, &[]);
            finish(session, id, false);
        }
        Outgoing::Reset(id, why) if is_open(&id) => {
            frame::put_reset(out, id, why);
            session.shared().open.remove(&id);
        }
        // The client has given it up.
        Outgoing::Reply(_) | Outgoing::Data(..) | Outgoing::Finish(_) | Outgoing::Reset(..) => {}
    }
}

#[cfg(test)]
mod tests;
