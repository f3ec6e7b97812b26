"""Weather: temperature, humidity and air pressure."""

from lamppost import Node
from lamppost.drivers.bme280 import BME280

node = Node.from_config()
# The second address, 0x77, is a sensor's whose SDO pin is at the supply: BME280(node.i2c(), address=0x77).
node.observe(BME280(node.i2c()), every=60)
node.run()
