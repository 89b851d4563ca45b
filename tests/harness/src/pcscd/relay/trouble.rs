//! What goes wrong between a client and pcscd, and when.

use super::wire::{Request, Version};

/// A fault at some requests; it lasts until [`super::Relay::clear_troubles`],
/// unless [`Self::times`] says otherwise.
#[derive(Clone, Debug)]
pub struct Trouble {
    what: What,
    on: Option<Request>,
    skip: u32,
    times: Option<u32>,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Cut,
    CutUnread,
    Hang,
    Answer(u32),
    Speak(Version),
}

impl Trouble {
    /// The connection is closed instead of an answer, as when pcscd dies.
    #[must_use]
    pub fn cut() -> Self {
        Self::new(What::Cut)
    }

    /// The same, but the request's body was not read either, which the client
    /// sees as a reset connection.
    #[must_use]
    pub fn cut_unread() -> Self {
        Self::new(What::CutUnread)
    }

    /// No answer, until [`super::Relay::release`].
    #[must_use]
    pub fn hang() -> Self {
        Self::new(What::Hang)
    }

    /// This code, and nothing is done. Requests that are answered without a
    /// code (those for the readers' states) are not met.
    #[must_use]
    pub fn answer(code: u32) -> Self {
        Self::new(What::Answer(code))
    }

    /// Every client is rejected with this version of the protocol, as by a pcscd before 2.4.1.
    #[must_use]
    pub fn speak(major: u32, minor: u32) -> Self {
        Self::new(What::Speak((major, minor))).on(Request::Version)
    }

    /// At requests of this kind only.
    #[must_use]
    pub fn on(mut self, request: Request) -> Self {
        self.on = Some(request);
        self
    }

    /// Not before the nth of the requests that it is for; 1 is the next.
    #[must_use]
    pub fn from(mut self, nth: u32) -> Self {
        self.skip = nth.saturating_sub(1);
        self
    }

    /// For so many requests.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    fn new(what: What) -> Self {
        Self { what, on: None, skip: 0, times: None }
    }

    /// Meets a request, if it is one of those.
    pub(super) fn meet(&mut self, request: Request) -> Option<What> {
        let is_met = self.on.is_none_or(|on| on == request)
            && self.times != Some(0)
            && (!matches!(self.what, What::Answer(_)) || request.has_code());
        if !is_met {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        if let Some(times) = &mut self.times {
            *times -= 1;
        }
        Some(self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_meets_nth_request_limited_times() {
        let mut trouble = Trouble::cut().on(Request::Connect).from(2).times(1);
        assert_eq!(trouble.meet(Request::Connect), None);
        assert_eq!(trouble.meet(Request::Transmit), None);
        assert_eq!(trouble.meet(Request::Connect), Some(What::Cut));
        assert_eq!(trouble.meet(Request::Connect), None);
    }

    #[test]
    fn code_trouble_skips_requests_without_code() {
        let mut trouble = Trouble::answer(1);
        assert_eq!(trouble.meet(Request::States), None);
        assert_eq!(trouble.meet(Request::Release), Some(What::Answer(1)));
    }
}
