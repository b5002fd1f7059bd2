-- The lakehouse's catalog beside Airflow's own database, in the same server. Run once, when the volume is empty.
CREATE DATABASE corpusmill;
