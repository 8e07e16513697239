"""What an operator does at the desk: verbs over the store that page, API and command line call alike."""
