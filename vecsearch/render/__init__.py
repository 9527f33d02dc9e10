"""How things look: `rows` on a terminal or in a pipe, `sheets` as pictures, `report` as a page."""
