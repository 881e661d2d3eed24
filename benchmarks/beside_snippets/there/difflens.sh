# The dictionary, the classifier, the features, and pictures; a switch of the configuration is set before each.
python -m difflens ./config/P2/example_P2.yaml
python -m difflens ./config/P2/train_h_classifier/h_classifier_config.yaml
python -m difflens ./config/P2/example_P2.yaml
cd utils/P2 && python aggregate_features.py
python -m difflens ./config/P2/example_P2.yaml
