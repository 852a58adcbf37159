"""The frame of every page: who is signed in, where they may go, and what everybody must know."""

import streamlit as st

from core import outage
from pages.parts import access, frame, notice

# Before the menu: a page's Material icon would otherwise be fetched as the tab's icon, from a host that is not ours.
st.set_page_config(page_icon=frame.MARK, layout="wide")
top, memory = st.container(key="frame-store"), frame.memory()
try:
    with outage.remembering(memory):
        who = access.enter()
        chosen = access.navigation()
        st.logo(frame.LOGO, size="large", icon_image=frame.MARK)

        frame.signed_in(who)
        frame.banners()
        notice.show()
        chosen.run()
except access.PageEnd:
    pass
except outage.Away:
    memory.used = True
    frame.cannot_show()
finally:
    with top:  # Last, because the page may have been the first to find the store away.
        frame.store(memory)
