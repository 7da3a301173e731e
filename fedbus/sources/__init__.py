"""Where a site's labelled studies come from, if not from a person who copies them: polled, checked, placed."""
