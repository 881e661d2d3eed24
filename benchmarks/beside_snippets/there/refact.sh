# A table of one row: what is said, what is meant, five prompts that should change and five that should not.
cat > own.csv <<'CSV'
old,new,positive1,positive2,positive3,positive4,positive5,negative1,negative2,negative3,negative4,negative5
a dog,a cat,a sleeping dog,a dog in a car,...
CSV
python clip_edit.py --file own.csv --model CompVis/stable-diffusion-v1-4 --dataset TIME --data_split test \
    --algorithm contrastive_text --v_similarity_metric l2 --edit_layer 9 --v_lr 0.05 --v_max_grad_steps 100 \
    --v_prob_threshold 0.99 --use_negative_images --num_negative_images 20
