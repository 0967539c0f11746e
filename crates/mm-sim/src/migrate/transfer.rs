//! One page carried by a device: a staged pair is the migration itself, any other is a copy of bytes.

use super::Carry;
use crate::State;
use crate::content::Content;
use crate::footprint::{self, StatePart};
use crate::sim::{Locked, Sim};
use hostmm::{AccessError, ClaimId, HostMemory, Place};
use units::{Outcome, SZ_4K};

impl Sim {
    /// Carries one page.
    pub(crate) fn transfer_page(&self, src: Place, dst: Place) -> Outcome {
        let mut state = self.lock();
        let aimed = state.claims.aimed_at(dst);
        match aimed.filter(|(id, index)| state.claims.held(*id).pages[*index].comes_from(src)) {
            Some((id, index)) => {
                // How far the claim's page is goes with its destination: who asks holds the lock for more than a look.
                footprint::tell(&state, [StatePart::Bytes(src).read(), StatePart::Bytes(dst).written()]);
                state.carry_copy(id, index, src, dst)
            }
            None => self.copy_page(state, aimed, src, dst),
        }
    }

    /// Copies the bytes of a pair that nobody staged. A staged destination takes them all the same.
    #[inline(never)]
    fn copy_page(&self, state: Locked<'_>, aimed: Option<(ClaimId, usize)>, src: Place, dst: Place) -> Outcome {
        drop(state);
        let mut bytes = [0; SZ_4K as usize];
        let copied = self.read(src, 0, &mut bytes).and_then(|()| {
            let mut state = self.lock();
            if aimed.is_some() && aimed == state.claims.aimed_at(dst) && state.takes_bytes(dst, &bytes) {
                return Ok(());
            }
            drop(state);
            self.write(dst, 0, &bytes)
        });
        match copied {
            Ok(()) => Outcome::Copied,
            Err(AccessError::Empty | AccessError::Again | AccessError::Fault) => Outcome::Failed,
        }
    }
}

impl State {
    /// Gives a staged destination bytes from some other source; whether that destination was still waiting for any.
    fn takes_bytes(&mut self, dst: Place, bytes: &[u8]) -> bool {
        let Some((id, index)) = self.claims.aimed_at(dst) else { return false };
        let page = self.claims.held(id).pages[index];
        if page.carry != Carry::Nothing {
            return false;
        }
        let mut content = Content::default();
        content.write(0, bytes);
        match dst {
            Place::Device(to) => self.vram.fill(to, content, None),
            Place::Host(frame) => self.frames.held(frame).content = content,
        }
        self.claims.held(id).pages[index].carry = Carry::Copied;
        true
    }
}
