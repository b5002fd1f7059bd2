"""The pages "Corpus quality" inside Airflow's UI: routes behind Airflow's authorisation, and plain ES modules."""
