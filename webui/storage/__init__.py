"""What is kept on disk: sessions, bots and presets as JSON that survives crashes, full disks and power cuts.

`Store` is the way in. Of the rest of webui/ it takes ids, errors, strict JSON and the check of sampling
values; nothing here knows HTTP, the model, or a reply that is being written.
"""
