# A table of one row: the assumption, five prompts that should change and five that should not, each with its truth.
cat > own.csv <<'CSV'
old,new,positive1,gt1,positive2,gt2,positive3,gt3,positive4,gt4,positive5,gt5,negative1,gn1,negative2,gn2,...
a rose,a blue rose,a field of roses,a field of blue roses,...
CSV
python apply_time.py --with_to_k --with_augs --train_func train_closed_form --lamb 0.1 --save_dir results \
    --dataset own.csv --begin_idx 0 --end_idx 1 --num_seeds 1
