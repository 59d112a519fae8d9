//! `report`: one page of evidence: what can be recovered, how well that was proven, and by whom.
