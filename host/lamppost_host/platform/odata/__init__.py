"""OData as SensorThings uses it: text -> syntax tree -> SQL."""
