//! What may come behind a TLS 1.3 handshake beside data: alerts, KeyUpdates, and tickets, which nobody here
//! uses (RFC 8446 sections 4.6 and 6).
//!
//! Messages are read as they come, however they are split over records; nothing of them is kept but where
//! in one we are.

use super::violation::Violation;

pub(super) const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;

const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
/// KeyUpdate: our keys are new, and the peer's may stay (section 4.6.3).
pub(super) const KEYS_RENEWED: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];
/// KeyUpdate: our keys are new, and the peer's shall be, too.
pub(super) const KEYS_ASKED: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 1];

/// The alert by which either side ends (section 6.1).
pub(super) const CLOSE_NOTIFY: [u8; 2] = [1, 0];
/// An alert without consequence: the peer's user has no interest any more, and close_notify follows.
const USER_CANCELED: u8 = 90;

/// Tickets of a session are a few hundred bytes, two of them.
const TICKET_BYTES_MAX: usize = 1 << 16;

/// What a record means for the session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The peer will send nothing more.
    Closed,
    /// The peer goes on with new keys.
    KeysRenewed { asks_for_ours: bool },
}

/// Where in the stream of handshake messages we are.
#[derive(Debug)]
pub(super) struct After {
    we_are_client: bool,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a header, of which so much is known.
    Header { read: u8, bytes: [u8; 4] },
    /// In a ticket, of which so much is to come.
    Ticket { left: usize },
    /// Before the one byte of a KeyUpdate.
    KeyUpdate,
}

const BETWEEN: Place = Place::Header { read: 0, bytes: [0; 4] };

impl After {
    pub(super) fn new(we_are_client: bool) -> Self {
        Self { we_are_client, place: BETWEEN }
    }

    /// Whether a message has begun and not ended, so that nothing else may come (section 5.1).
    pub(super) fn is_in_a_message(&self) -> bool {
        self.place != BETWEEN
    }

    /// Takes in the content of a record.
    pub(super) fn take(&mut self, content_type: u8, content: &[u8]) -> Result<Option<Event>, Violation> {
        match content_type {
            HANDSHAKE if content.is_empty() => Err(Violation::Unexpected("an empty handshake record")),
            HANDSHAKE => self.messages(content),
            _ if self.is_in_a_message() => {
                Err(Violation::Unexpected("another record in the middle of a handshake message"))
            }
            ALERT => alert(content),
            // It holds nothing, or it would not have come here.
            APPLICATION_DATA => Ok(None),
            _ => Err(Violation::Unexpected("a record of an unknown content type")),
        }
    }

    fn messages(&mut self, mut content: &[u8]) -> Result<Option<Event>, Violation> {
        while let Some((&first, rest)) = content.split_first() {
            match &mut self.place {
                Place::Header { read, bytes } => {
                    bytes[usize::from(*read)] = first;
                    *read += 1;
                    content = rest;
                    if *read == 4 {
                        self.place = place_behind(*bytes, self.we_are_client)?;
                    }
                }
                Place::Ticket { left } => {
                    let skipped = content.len().min(*left);
                    *left -= skipped;
                    content = &content[skipped..];
                }
                Place::KeyUpdate => {
                    self.place = BETWEEN;
                    return key_update(first, rest).map(Some);
                }
            }
            if let Place::Ticket { left: 0 } = self.place {
                self.place = BETWEEN;
            }
        }
        Ok(None)
    }
}

/// The place behind a header.
fn place_behind(header: [u8; 4], we_are_client: bool) -> Result<Place, Violation> {
    let [kind, length @ ..] = header;
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    match kind {
        NEW_SESSION_TICKET if we_are_client && length <= TICKET_BYTES_MAX => {
            Ok(Place::Ticket { left: length })
        }
        KEY_UPDATE if length == 1 => Ok(Place::KeyUpdate),
        KEY_UPDATE => Err(Violation::Malformed("a KeyUpdate of another length than 1")),
        _ => Err(Violation::Unexpected("a handshake message that has no place behind the handshake")),
    }
}

/// Nothing may follow it in its record, which is sealed with the keys before (section 5.1).
fn key_update(request: u8, rest: &[u8]) -> Result<Event, Violation> {
    match (request, rest) {
        (0 | 1, []) => Ok(Event::KeysRenewed { asks_for_ours: request == 1 }),
        (0 | 1, _) => Err(Violation::Unexpected("a message behind a KeyUpdate, under the keys before")),
        _ => Err(Violation::Illegal("a KeyUpdate that asks for something unknown")),
    }
}

fn alert(content: &[u8]) -> Result<Option<Event>, Violation> {
    match *content {
        [_, description] if description == CLOSE_NOTIFY[1] => Ok(Some(Event::Closed)),
        [_, USER_CANCELED] => Ok(None),
        [_, description] => Err(Violation::Alert(description)),
        _ => Err(Violation::Malformed("an alert of another length than 2")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(records: &[(u8, &[u8])], expected: &Result<Option<Event>, Violation>) {
        let mut after = After::new(true);
        let mut last = Ok(None);
        for (content_type, content) in records {
            assert!(matches!(last, Ok(None)), "{records:?} ended early: {last:?}");
            last = after.take(*content_type, content);
        }
        assert_eq!(&last, expected, "{records:?}");
    }

    const TICKET: [u8; 7] = [NEW_SESSION_TICKET, 0, 0, 3, 9, 9, 9];

    #[test]
    fn messages_are_read_however_they_are_split() {
        let renewed = |asks_for_ours| Ok(Some(Event::KeysRenewed { asks_for_ours }));
        check(&[(HANDSHAKE, &KEYS_RENEWED)], &renewed(false));
        check(&[(HANDSHAKE, &KEYS_ASKED)], &renewed(true));
        for cut in 1..5 {
            check(&[(HANDSHAKE, &KEYS_ASKED[..cut]), (HANDSHAKE, &KEYS_ASKED[cut..])], &renewed(true));
        }
        let both = [&TICKET[..], &KEYS_RENEWED].concat();
        for cut in 1..both.len() {
            check(&[(HANDSHAKE, &both[..cut]), (HANDSHAKE, &both[cut..])], &renewed(false));
        }
        check(
            &[(HANDSHAKE, &[NEW_SESSION_TICKET, 0, 0, 0]), (ALERT, &CLOSE_NOTIFY)],
            &Ok(Some(Event::Closed)),
        );
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let unexpected = |records: &[(u8, &[u8])]| {
            let mut after = After::new(true);
            let mut last = Ok(None);
            for (content_type, content) in records {
                last = after.take(*content_type, content);
            }
            assert!(matches!(last, Err(Violation::Unexpected(_))), "{records:?}: {last:?}");
        };
        unexpected(&[(HANDSHAKE, &[])]);
        unexpected(&[(HANDSHAKE, &[1, 0, 0, 0])]);
        unexpected(&[(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0, 0])]);
        unexpected(&[(HANDSHAKE, &KEYS_ASKED[..2]), (ALERT, &CLOSE_NOTIFY)]);
        unexpected(&[(20, &[1])]);
        check(
            &[(HANDSHAKE, &[KEY_UPDATE, 0, 0, 2])],
            &Err(Violation::Malformed("a KeyUpdate of another length than 1")),
        );
        check(
            &[(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 2])],
            &Err(Violation::Illegal("a KeyUpdate that asks for something unknown")),
        );
        check(&[(ALERT, &[2])], &Err(Violation::Malformed("an alert of another length than 2")));
        check(&[(ALERT, &[2, 20])], &Err(Violation::Alert(20)));
        check(&[(ALERT, &[1, USER_CANCELED]), (ALERT, &CLOSE_NOTIFY)], &Ok(Some(Event::Closed)));
        // A server is sent no tickets.
        assert!(After::new(false).take(HANDSHAKE, &TICKET).is_err());
    }
}
