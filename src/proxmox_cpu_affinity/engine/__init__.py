"""Pure placement: from facts to a decision, with its reasons. numpy lives here alone."""
