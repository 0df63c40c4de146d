//! How NCCL carries out a collective, and the scratch memory that it needs for that.

use super::Peer;
use super::exchange::DeviceCollective;
use super::ir::Buffer;
use crate::collectives::Collective;
use crate::placement::{Region, Spec};
use crate::tensor::{Element, LocalSlice, Strided};

/// How NCCL carries out a collective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By one call.
    Native,
    /// By one call on gradients that are rounded.
    InBf16,
    /// By messages.
    Messages,
}

impl DeviceCollective<'_> {
    /// Returns how it is carried out, given the buffer of the tensor.
    pub fn way(&self, to: &Buffer, spec: &Spec) -> Way {
        let adds = matches!(self.collective, Collective::AllReduce | Collective::ReduceScatter);
        if adds && (spec.deterministic || to.element == Element::Bf16) {
            return Way::Messages;
        }
        let own = self.peers.iter().find(|peer| peer.device == self.device);
        let own = own.expect("a device takes part in its own collectives");
        let native = match self.collective {
            Collective::AllReduce if spec.reduces_in_bf16 && to.region == Some(Region::Gradients) => {
                return Way::InBf16;
            }
            Collective::AllReduce => true,
            Collective::ReduceScatter => self.follow_each_other(|peer| &peer.to, &own.from),
            Collective::AllGather => self.follow_each_other(|peer| &peer.from, &own.to),
            _ => false,
        };
        if native { Way::Native } else { Way::Messages }
    }

    /// Returns whether the parts of all peers have one length, and follow each other in the memory of the whole.
    fn follow_each_other(&self, part: impl Fn(&Peer) -> &LocalSlice, whole: &LocalSlice) -> bool {
        let elements = whole.elements() / self.peers.len();
        self.peers.iter().enumerate().all(|(rank, peer)| {
            part(peer).elements() == elements
                && Strided::of(part(peer), whole) == Strided::contiguous(rank * elements, elements)
        })
    }

    /// Returns the number and the type of the elements of scratch memory that a GPU needs, given the buffer of the tensor.
    pub fn nccl_scratch(&self, to: &Buffer, spec: &Spec) -> (usize, Element) {
        match self.way(to, spec) {
            Way::Native => (0, to.element),
            Way::InBf16 => {
                let own = self.peers.iter().find(|peer| peer.device == self.device);
                (own.map_or(0, |peer| peer.to.elements()), Element::Bf16)
            }
            Way::Messages => (self.scratch(), to.element),
        }
    }
}
