//! Flows that want another visit.

use crate::flow::FlowId;

/// A list in which a flow is at most once, so that its length is bounded and a flow that is
/// listed for several reasons is not visited several times, and listed again each time.
#[derive(Debug)]
pub(super) struct Again {
    ids: Vec<FlowId>,
    /// By slot: the generation that is listed, plus one.
    listed: Vec<u32>,
}

/// Bytes of the list for each flow.
pub(super) const AGAIN_ENTRY: usize = size_of::<FlowId>() + size_of::<u32>();

impl Again {
    /// A list for a table of `flows` slots.
    pub(super) fn new(flows: usize) -> Self {
        Self { ids: Vec::with_capacity(flows), listed: vec![0; flows] }
    }

    /// Lists a flow, unless it is listed.
    pub(super) fn push(&mut self, id: FlowId) {
        let Some(listed) = self.listed.get_mut(id.index as usize) else { return };
        let mark = id.generation.saturating_add(1);
        if *listed != mark {
            *listed = mark;
            self.ids.push(id);
        }
    }

    /// Takes one.
    pub(super) fn pop(&mut self) -> Option<FlowId> {
        let id = self.ids.pop()?;
        if let Some(listed) = self.listed.get_mut(id.index as usize) {
            *listed = 0;
        }
        Some(id)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_flow_once_but_its_successor_too() {
        let id = |index, generation| FlowId { index, generation };
        let mut again = Again::new(4);
        for id in [id(1, 0), id(3, 7), id(1, 0), id(1, 1), id(1, 1)] {
            again.push(id);
        }
        let mut all = vec![];
        while let Some(id) = again.pop() {
            all.push(id);
        }
        assert_eq!(all, [id(1, 1), id(3, 7), id(1, 0)]);
        again.push(id(1, 1));
        assert_eq!(again.pop(), Some(id(1, 1)));
    }
}
