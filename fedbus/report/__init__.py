"""Pages for people: one self-contained HTML file each, and the same facts as JSON. No torch, no bus, no network."""
