def render(found):
    return "<html></html>"
