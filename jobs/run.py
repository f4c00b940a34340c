"""Any command as a job: ``ray job submit ... --working-dir . -- python jobs/run.py train POOL:best ...``.

It works where the job runs: ``train`` wants ``--entrypoint-num-gpus 1``.
"""

from nao_ray.cli.app import main

if __name__ == "__main__":
    main()
