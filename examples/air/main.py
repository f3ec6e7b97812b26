"""Air at a street: particulate matter, and the weather that it hangs in."""

from lamppost import Node
from lamppost.drivers.bme280 import BME280
from lamppost.drivers.pms5003 import PMS5003

node = Node.from_config()
node.observe(PMS5003(node.uart()), every=60)
node.observe(BME280(node.i2c()), every=60)
node.run()
