# A table of labelled prompts, and one command for the vector and the pictures.
cat > own/train.csv <<'CSV'
caption,label
a woman cook,1
a man cook,0
a woman judge,1
a man judge,0
a woman pilot,1
a man pilot,0
CSV
t2i-steer --config-name=steer/caa model=sd15 dataset_name=own label_col=label alpha=10 use_baseline=true \
    layer_names="[unet.mid_block.attentions.0.transformer_blocks.0.attn2]" prompts="[a guard, a singer]"
