# A picture for each layer; they are scored by hand, or by a script of one's own.
python trace_attn_layer.py --og_prompt "a house in the style of van gogh" --prompt "a painting" \
    --sd_version 1 --seed 0
