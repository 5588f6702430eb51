//! The part of an answer that a validator looks at: signatures, denials, proofs beside referrals. Does nothing where the
//! zone is not signed, or nobody asked.

use super::super::sign::denial::{self, MISSING};
use super::{Choice, Client, Ede, Full, Node, Rcode, Section, Steered, Work, rtype};
use crate::wire::dns::Mark;

impl<'t> Work<'t, '_> {
    /// Makes ready to sign what is answered from `zone`.
    pub(super) fn secure(&mut self, zone: u32) {
        if let Some(stream) = self.dnssec {
            self.cover = self.table.fixed.signing.cover(zone, stream, self.now);
        }
    }

    /// Signs what was written to `section` and is not signed yet.
    pub(super) fn seal(&mut self, section: Section) -> Result<(), Full> {
        let Some(cover) = &mut self.cover else { return Ok(()) };
        cover.seal(&mut self.reply, section, self.query.question_end, &self.table.fixed).map_err(|_| Full)
    }

    /// Signs what has just been written at the name at offset `owner`, of `steered` for this client. Where it may not be
    /// signed now, the set of the client's crowd takes its place: of the same generation, fence and nearness, so never an
    /// address that was taken down. Gives the choice that the answer holds.
    pub(super) fn seal_choice(
        &mut self,
        steered: &Steered,
        (client, choice): (&Client, Choice),
        owner: usize,
        before: Mark,
    ) -> Result<Choice, Full> {
        let Some(cover) = &mut self.cover else { return Ok(choice) };
        let fixed = &self.table.fixed;
        if cover.seal_choice(&mut self.reply, self.query.question_end, fixed)? {
            return Ok(choice);
        }
        self.reply.back_to(before);
        let shared = steered.choose(&client.in_crowd()).unwrap_or(choice);
        if !steered.put(&mut self.reply, owner, self.query.rtype, &shared)? {
            // That the crowd has no address of this family does not mean that the client has none.
            cover.give_up();
            return Err(Full);
        }
        Ok(shared)
    }

    /// Whether the answer lacks a signature that coming again in a stream would not bring, either. It is SERVFAIL then: the
    /// client may ask another server, but is never told what it could not validate.
    pub(super) fn failed(&mut self) -> bool {
        let failed = self.cover.as_ref().is_some_and(|c| c.is_lacking() && c.is_stream());
        if failed {
            self.reply.clear();
            (self.rcode, self.authoritative, self.steered) = (Rcode::ServFail, false, None);
            self.why = Some(Ede::RRSIGS_MISSING);
        }
        failed
    }

    /// The code for a name that does not exist: a compact denial says so only to those who asked (RFC 9824 section 5.1).
    pub(super) fn missing(&self) -> Rcode {
        let hidden = self.cover.is_some() && !self.query.edns.is_some_and(|e| e.compact_ok);
        if hidden { Rcode::NoError } else { Rcode::NxDomain }
    }

    /// Writes the set of this type that `node` has because its zone is signed. False: there is none.
    pub(super) fn keys(&mut self, node: &Node, zone: u32, owner: usize) -> Result<bool, Full> {
        let (fixed, wanted) = (&self.table.fixed, self.query.rtype);
        let Some((records, octets)) =
            fixed.signing.apex_set(zone, wanted, self.now).filter(|_| fixed.is_apex(node, zone))
        else {
            return Ok(false);
        };
        self.reply.put_owned(Section::Answer, records, octets, owner)?;
        Ok(true)
    }

    /// Answers a question for NSEC itself: every name has one, those that do not exist, too. False: nothing is signed.
    pub(super) fn nsec(&mut self, zone: u32) -> Result<bool, Full> {
        if self.query.rtype != rtype::NSEC || self.cover.is_none() {
            return Ok(false);
        }
        self.rcode = Rcode::NoError;
        self.put_nsec(Section::Answer, zone, 0)?;
        Ok(true)
    }

    /// Signs the negative answer that was just written, and proves it.
    pub(super) fn deny(&mut self, zone: u32) -> Result<(), Full> {
        if self.cover.is_none() {
            return Ok(());
        }
        self.put_nsec(Section::Authority, zone, self.query.rtype)?;
        self.seal(Section::Authority)
    }

    /// Proves what the zone beneath the cut at `owner` is: signed by the keys of its DS set, or not signed.
    pub(super) fn prove_cut(&mut self, node: &'t Node, zone: u32, owner: usize) -> Result<(), Full> {
        let Some(cover) = &mut self.cover else { return Ok(()) };
        // The NS set belongs to the zone beneath (RFC 4035 section 2.2).
        cover.pass(self.reply.at());
        let fixed = &self.table.fixed;
        if let Some(set) = fixed.set(node, rtype::DS) {
            self.reply.put_owned(Section::Authority, set.records, set.octets, owner)?;
        } else {
            self.place = (owner, Some(node));
            self.put_nsec(Section::Authority, zone, rtype::DS)?;
        }
        self.seal(Section::Authority)?;
        if let Some(cover) = &mut self.cover {
            // Nor is glue signed.
            cover.pass(usize::MAX);
        }
        Ok(())
    }

    fn put_nsec(&mut self, section: Section, zone: u32, lacking: u16) -> Result<(), Full> {
        let (owner, node) = self.place;
        let fixed = &self.table.fixed;
        let (apex, negative) = fixed.ends(zone);
        let end = (apex, denial::ttl(negative));
        let types = node.map(|node| {
            let steered = self.table.steered(node).map(|(_, s)| s);
            denial::types(fixed, node, steered, zone, lacking, self.now)
        });
        denial::put(&mut self.reply, section, owner, types.as_deref().unwrap_or(&MISSING), end)
    }
}
