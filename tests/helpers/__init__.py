"""What tests share: models, engines, servers and disks that are small, scripted or failing."""
