"""What tests share: services, sites, waiting."""
